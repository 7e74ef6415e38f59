"""GGUF files for llama.cpp, as they lie on the disk; tests/deploy/test_targets.py runs them."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from conftest import ENGLISH
from students import TEXTS, export, small

from mlkd.config.student import TrimConfig
from mlkd.deploy.dense import plain_config, unrolled
from mlkd.deploy.formats import FORMATS, GGUF
from mlkd.deploy.gate import Refused
from mlkd.deploy.gguf_file import open_gguf, read_gguf, write_gguf
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.student.trim import pieces_to_keep, trimmed


def strings(file: Path, key: str) -> list[str]:
    found: list[str] = gguf.GGUFReader(file).fields[key].contents()
    return found


def test_weights_come_back(encoder_folder: Path, tmp_path: Path) -> None:
    model = small(encoder_folder, 4, layers=2, recurrence=2)
    expected = unrolled(model).state_dict()
    for kind in ("f32", "q8_0"):
        write_gguf(model, tmp_path / kind, q8=kind == "q8_0")
        found = read_gguf(tmp_path / kind, plain_config(model)).state_dict()
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            rows = tensor.reshape(len(tensor), -1)
            quantised = (
                kind == "q8_0" and name.endswith("output.dense.weight") and rows.shape[1] == 64
            )
            if quantised:  # half a step of its largest number, for each 32
                blocks = rows.reshape(-1, 32)
                error = (found[name].reshape(-1, 32) - blocks).abs().amax(1)
                assert (error <= blocks.abs().amax(1) / 127 * (0.5 + 127 / 2**11)).all()
                assert error.max() > 0
            else:
                assert torch.equal(found[name], tensor), name


def test_the_file_says_what_llama_cpp_reads(encoder_folder: Path, tmp_path: Path) -> None:
    model = small(encoder_folder, 4, layers=2, recurrence=2)
    write_gguf(model, tmp_path / "model.gguf", q8=False)
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    said = {key: field.contents() for key, field in fields.items()}
    assert said["general.architecture"] == "bert"
    assert said["bert.context_length"] == 16
    assert said["bert.block_count"] == 4
    assert said["bert.pooling_type"] == gguf.PoolingType.MEAN
    assert said["bert.attention.causal"] is False
    assert said["tokenizer.ggml.normalizer.lowercase"] is True
    assert said["tokenizer.ggml.normalizer.strip_accents"] is True  # as BERT, where not said
    tokenizer = model.tokenizer
    for role, key in (("cls", "bos"), ("sep", "seperator"), ("pad", "padding"), ("unk", "unknown")):
        assert said[f"tokenizer.ggml.{key}_token_id"] == getattr(tokenizer, f"{role}_token_id")


@pytest.mark.parametrize("trim", [False, True])
def test_pieces_are_marked_where_a_word_begins(
    trim: bool, encoder_folder: Path, tmp_path: Path
) -> None:
    """Special ones stay as they are; a trimmed vocabulary is one like any other."""
    model = small(encoder_folder, 4, layers=2, recurrence=1)
    if trim:
        size = len(model.tokenizer)
        ids = [i for row in model.tokenizer(ENGLISH)["input_ids"] for i in row]
        counts = {"en": np.bincount(ids, minlength=size)}
        model = trimmed(model, pieces_to_keep(model, counts, TrimConfig(min_share=0.01)))
        assert len(model.tokenizer) < size
    write_gguf(model, tmp_path / "model.gguf", q8=False)
    stored = strings(tmp_path / "model.gguf", "tokenizer.ggml.tokens")
    vocabulary = model.tokenizer.get_vocab()
    assert len(stored) == len(vocabulary)
    for piece, index in vocabulary.items():
        if piece in model.tokenizer.all_special_tokens:
            assert stored[index] == piece
        elif piece.startswith("##"):
            assert stored[index] == piece[2:]
        else:
            assert stored[index] == f"\u2581{piece}"


def test_the_folder_has_the_vectors_of_the_student(encoder_folder: Path, tmp_path: Path) -> None:
    save_folder(small(encoder_folder, 4, layers=2, recurrence=2), tmp_path / "student")
    out = export(tmp_path / "student", tmp_path / "out", "gguf") / "gguf"
    expected = load_folder(tmp_path / "student").encode(TEXTS)
    found = open_gguf(out, out / GGUF["f32"]).encode(TEXTS)
    assert np.abs(found - expected).max() < 1e-5
    report = json.loads((out / "export.json").read_text())["parts"]
    assert list(report) == list(GGUF.values())
    assert "latency_ms" not in report[GGUF["f32"]]  # it did not run in llama.cpp
    card = (out / "README.md").read_text()
    assert "library_name: llama.cpp" in card
    assert "contextSize: 16" in card


def test_what_llama_cpp_would_not_run_is_refused(xlmr: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="gguf: xlm-roberta with Unigram is not supported; allowed"):
        FORMATS["gguf"].write(load_folder(xlmr), tmp_path)
