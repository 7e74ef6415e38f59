"""What an encoder reads before each sentence: for targets and scores alike, never by a student."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ENGLISH, GERMAN, Command, configure, tiny_settings
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from mlkd.config.inputs import EncoderConfig
from mlkd.encoders.folder import load_folder, save_folder, with_prompt
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.metrics.evaluation import open_encoder_folder
from mlkd.output.errors import UserError
from mlkd.recipes.run import run_chain
from mlkd.storage.files import default_prompt, encoder_fingerprint

QUERY = "the old house "
"""A prompt whose words the tiny vocabulary has, so that it changes the vectors."""


@pytest.fixture
def prompted(encoder_folder: Path, tmp_path: Path) -> Path:
    """A folder with two prompts, one of them by default."""
    model = load_folder(encoder_folder)
    model.prompts = {"query": QUERY, "passage": "a small cat "}
    model.default_prompt_name = "query"
    save_folder(model, tmp_path / "prompted")
    return tmp_path / "prompted"


def vectors(folder: Path, texts: list[str] = ENGLISH) -> np.ndarray:
    return FrozenEncoder.open(folder, max_tokens=32).encode(texts)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.allclose(a, b, atol=1e-5)


def test_the_default_prompt_is_read_as_its_users_do(prompted: Path, encoder_folder: Path) -> None:
    theirs = SentenceTransformer(str(prompted), device="cpu")
    assert same(vectors(prompted), theirs.encode(ENGLISH))
    assert same(vectors(prompted), vectors(encoder_folder, [QUERY + text for text in ENGLISH]))
    assert not same(vectors(prompted), vectors(encoder_folder))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({}, QUERY),
        ({"prompt": ""}, ""),
        ({"prompt": "we drink "}, "we drink "),
        ({"prompt_name": "passage"}, "a small cat "),
        ({"prompt_name": "query"}, QUERY),
    ],
)
def test_a_setting_chooses_the_prompt(
    prompted: Path, encoder_folder: Path, tmp_path: Path, setting: dict[str, Any], expected: str
) -> None:
    config = EncoderConfig(path=str(prompted), **setting)
    folder = open_encoder_folder(config, False, tmp_path / "cache")
    assert default_prompt(folder) == expected
    assert same(vectors(folder), vectors(encoder_folder, [expected + text for text in ENGLISH]))
    assert same(vectors(folder), SentenceTransformer(str(folder), device="cpu").encode(ENGLISH))
    assert open_encoder_folder(config, False, tmp_path / "cache") == folder


def test_an_unknown_or_second_prompt_is_refused(
    prompted: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    wrong = EncoderConfig(path=str(prompted), prompt_name="question")
    with pytest.raises(UserError, match=r"prompt_name=question: .* allowed: passage, query"):
        open_encoder_folder(wrong, False, tmp_path)
    none = EncoderConfig(path=str(encoder_folder), prompt_name="query")
    with pytest.raises(UserError, match="no such prompt"):
        open_encoder_folder(none, False, tmp_path)
    with pytest.raises(ValueError, match="at most one of prompt and prompt_name"):
        EncoderConfig(path=str(prompted), prompt="x", prompt_name="query")


def test_the_prompt_is_part_of_identity_and_the_folder_stays_as_it_is(
    prompted: Path, tmp_path: Path
) -> None:
    weights = prompted / "model.safetensors"
    weights.chmod(0o400)
    before = {p: p.read_bytes() for p in prompted.rglob("*") if p.is_file()}
    folders = [with_prompt(prompted, x, tmp_path / "cache") for x in ("", "a ", "b ")]
    assert with_prompt(prompted, QUERY, tmp_path / "cache") == prompted
    prints = {encoder_fingerprint(folder) for folder in [*folders, prompted]}
    assert len(prints) == 4
    assert {p: p.read_bytes() for p in prompted.rglob("*") if p.is_file()} == before
    assert stat.S_IMODE(weights.stat().st_mode) == 0o400
    identities = {FrozenEncoder.open(f, max_tokens=32).fingerprint for f in folders}
    assert len(identities) == 3


def test_a_mean_without_the_prompt_is_that_of_sentence_transformers(prompted: Path) -> None:
    model = SentenceTransformer(str(prompted), device="cpu")
    with_it = vectors(prompted)
    for module in model:
        if isinstance(module, Pooling):
            module.include_prompt = False
    save_folder(model, prompted)
    expected = SentenceTransformer(str(prompted), device="cpu").encode(ENGLISH)
    assert same(vectors(prompted), expected)
    assert not same(vectors(prompted), with_it)


def test_embeddings_alone_are_those_of_the_sentence(prompted: Path, encoder_folder: Path) -> None:
    ours, plain = (
        FrozenEncoder.open(folder, max_tokens=32, embeddings_only=True).encode(ENGLISH)
        for folder in (prompted, encoder_folder)
    )
    assert same(ours, plain)


def test_a_damaged_file_of_prompts_is_one_line(prompted: Path) -> None:
    (prompted / "config_sentence_transformers.json").write_text("[]")
    with pytest.raises(UserError, match="not the configuration of an encoder"):
        encoder_fingerprint(prompted)


@pytest.mark.slow
def test_students_of_a_prompted_teacher_read_no_prompt(
    prompted: Path, corpus: Path, tmp_path: Path
) -> None:
    """Targets are those of the prompted teacher; nothing asks the student's user for a prompt."""
    out = tmp_path / "out"
    config = configure("stage=assistant", *tiny_settings(prompted, corpus, out))
    run_chain(config)
    plain = config.teacher.model_copy(update={"prompt": ""})
    run_chain(config.model_copy(update={"teacher": plain}))
    runs = sorted(out.glob("runs/assistant-*"))
    assert len(runs) == 2  # two prompts, two students
    students = [SentenceTransformer(str(run / "student"), device="cpu") for run in runs]
    texts = ENGLISH + GERMAN
    for run, student in zip(runs, students, strict=True):
        assert student.default_prompt_name is None
        assert not any(student.prompts.values())
        assert same(student.encode(texts), vectors(run / "student", texts))
        assert same(student.encode_query(texts), student.encode_document(texts))
    assert not same(students[0].encode(texts), students[1].encode(texts))


def test_a_ready_assistant_is_trained_without_its_prompt(
    prompted: Path, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ready = [
        "assistant=folder",
        f"assistant.encoder.path={prompted}",
        "assistant.encoder.prompt_name=passage",
        "assistant.train=true",
    ]
    settings = [s for s in tiny_settings(prompted, corpus, out) if "vocabulary" not in s]
    run_chain(configure("stage=assistant", *settings, *ready))
    (run,) = out.glob("runs/assistant-*")
    assert default_prompt(run / "student") == ""
    record = json.loads((run / "run.json").read_text())
    assert record["config"]["assistant"]["encoder"]["prompt_name"] == "passage"


def test_evaluate_reads_the_prompt_that_was_asked_for(
    command: Command, prompted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scores = []
    for number, prompt in enumerate(["prompt=''", "prompt_name=passage", "prompt_name=query"]):
        output = tmp_path / f"{number}.json"
        words = [
            f"model={prompted}",
            "eval.bootstrap=0",
            "eval.max_pairs=20",
            "max_tokens=32",
            "teacher=folder",
        ]
        words += [f"teacher.path={prompted}", f"output={output}", prompt]
        result = command("mlkd.evaluate", *words)
        assert result.returncode == 0, result.stderr
        scores.append(json.loads(output.read_text())["scores"]["mean"])
    assert scores[0] != scores[1] != scores[2]
    refused = command("mlkd.evaluate", f"model={prompted}", "prompt=a", "prompt_name=query")
    assert refused.returncode == 2
    assert "at most one of prompt and prompt_name" in refused.stderr
