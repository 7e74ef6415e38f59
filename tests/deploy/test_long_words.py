"""Words without spaces, as sentences in Thai are, in every format of an export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import fake_runtime
from conftest import ENGLISH, GERMAN, wordpiece, write_encoder
from sentence_transformers import SentenceTransformer
from students import export, small
from tokenizers import Tokenizer

from mlkd.config.student import VocabularyConfig
from mlkd.deploy.exported import FP32, INT8, Q4, open_onnx
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.metrics.similarity import unit
from mlkd.student.vocabulary import assistant_from_teacher

THAI = "มนุษย์ทั้งหลายเกิดมามีอิสระ"
LONG = [
    THAI * 8,
    f"{THAI * 2}ฮ{THAI * 4}",
    f"the {THAI * 5} dog",
    "dog" * 60,
    "ฮ" * 150,
    THAI * 999,
]
FORMATS = ("portable", "onnx_int8", "onnx_q4", "compact", "gguf", "asymmetric", "web")


def learned(folder: Path) -> SentenceTransformer:
    """An assistant with a vocabulary of its own for Thai."""
    model = load_folder(write_encoder(folder, wordpiece(ENGLISH + GERMAN), depth=4))
    sentences, pairs = [("th", THAI)], [("the dog", THAI)]
    return assistant_from_teacher(
        model, VocabularyConfig(size=300), lambda: sentences, lambda: pairs
    )


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", ["learned", "given"])
def test_every_format_reads_long_words_as_the_student(
    vocabulary: str, encoder_folder: Path, tmp_path: Path
) -> None:
    assistant = learned(tmp_path) if vocabulary == "learned" else load_folder(encoder_folder)
    save_folder(assistant, tmp_path / "assistant")
    save_folder(small(tmp_path / "assistant", 4, layers=2, recurrence=2), tmp_path / "bert/student")
    (tmp_path / "texts.txt").write_text(THAI)
    web = {"runtime": str(fake_runtime(tmp_path)), "texts": str(tmp_path / "texts.txt")}
    out = export(tmp_path / "bert/student", tmp_path / "out", *FORMATS, max_loss=100, web=web,
                 documents=str(tmp_path / "assistant"))  # fmt: skip

    student = load_folder(tmp_path / "bert/student")
    longest = student.max_seq_length
    read = {}
    for model, folder in ((student, ""), (load_folder(tmp_path / "assistant"), "document")):
        ids = model.tokenizer(LONG, truncation=True, max_length=longest)["input_ids"]
        if vocabulary == "learned":  # the character without a piece alone is unknown
            assert [row.count(model.tokenizer.unk_token_id) for row in ids][:4] == [0, 1, 0, 0]
            assert len(model.tokenizer.tokenize(THAI * 8)) > 8
        read[folder] = ids
    files = sorted(out.rglob("tokenizer.json"))
    assert len(files) == len(FORMATS) + 1
    for file in files:
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.enable_truncation(longest)
        tokenizer.no_padding()
        found = [encoding.ids for encoding in tokenizer.encode_batch(LONG)]
        assert found == read["document" if file.parent.name == "document" else ""], file

    expected = unit(student.encode(LONG))
    both = SentenceTransformer(str(out / "asymmetric"), device="cpu")
    plain = SentenceTransformer(str(out / "portable"), device="cpu")
    for found in (plain.encode(LONG), both.encode_query(LONG)):
        assert np.abs(unit(found) - expected).max() <= 1e-5
    assert (unit(load_folder(out / "compact").encode(LONG)) == expected).all()
    documents = unit(load_folder(tmp_path / "assistant").encode(LONG))
    assert np.abs(unit(both.encode_document(LONG)) - documents).max() <= 1e-5
    graphs = ("portable", FP32, 1 - 1e-6), ("onnx_int8", INT8, 0.97), ("web", INT8, 0.97)
    for name, file, least in (*graphs, ("onnx_q4", Q4, 0.9)):
        assert (open_onnx(out / name, file=file)(LONG) * expected).sum(1).min() > least, name
