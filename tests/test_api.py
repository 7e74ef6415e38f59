"""The Python door: what it gives, and that the caller's process stays as it was."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ENGLISH

import mlkd
from mlkd.config.inputs import EncoderConfig
from mlkd.output.errors import Interrupted


def state() -> dict[str, Any]:
    """What belongs to the caller."""
    loggers = [logging.getLogger(name) for name in ("", "mlkd", "transformers", "lightning")]
    kernels = torch.backends.cuda
    return {
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "loggers": [(each.level, each.handlers[:]) for each in loggers],
        "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)],
        "random": [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()],  # noqa: NPY002
        "threads": torch.get_num_threads(),
        "kernels": [kernels.cudnn_sdp_enabled(), torch.backends.cudnn.benchmark],  # type: ignore[no-untyped-call]
        "gradients": torch.is_grad_enabled(),
    }


Check = Callable[[], None]


@pytest.fixture
def caller() -> Iterator[Callable[[], Check]]:
    """A process with settings of its own; gives what remembers it, and then compares it."""
    threads, before = torch.get_num_threads(), logging.getLogger("mlkd").level
    torch.set_num_threads(3)
    logging.getLogger("mlkd").setLevel(logging.CRITICAL)

    def remembered() -> Check:
        known = state()

        def unchanged() -> None:
            for name, value in state().items():
                assert value == known[name], name

        return unchanged

    yield remembered
    torch.set_num_threads(threads)
    logging.getLogger("mlkd").setLevel(before)


def sets(corpus: Path, **more: Any) -> dict[str, Any]:
    """Evaluation sets of a corpus folder, as values."""
    common = {"kind": "sts", "languages": ["en", "de"]}
    found = {
        split: {**common, "split": split, "path": f"sts-{split}-{{lang}}.tsv"}
        for split in ("dev", "test")
    }
    return {"root": corpus, "sets": found, "bootstrap": 0, **more}


def test_load_opens_runs_students_and_encoders(finished_assistant: Path) -> None:
    (run,) = finished_assistant.glob("runs/assistant-*")
    vectors = [mlkd.load(place).encode(ENGLISH) for place in (run, str(run / "student"))]
    assert np.array_equal(*vectors)
    with pytest.raises(mlkd.UserError, match="no sentence-transformers folder"):
        mlkd.load(run.parent)


def test_configure_takes_words_and_values() -> None:
    words = mlkd.configure("student=minilm_tiny", "student.layers=2", "seed=4")
    values = mlkd.configure("seed=4", student={**words.student.model_dump(), "layers": 2})
    assert values == words
    assert mlkd.configure(student="minilm_tiny") == mlkd.configure("student=minilm_tiny")
    deep = mlkd.configure(stages={"contrastive": {"max_steps": 7}}).stages
    plain = mlkd.configure().stages
    assert deep["contrastive"] == plain["contrastive"].model_copy(update={"max_steps": 7})
    assert {**deep, "contrastive": None} == {**plain, "contrastive": None}


def test_an_encoder_takes_the_place_of_another(encoder_folder: Path, corpus: Path) -> None:
    asked = EncoderConfig(path=str(encoder_folder))
    for given in (encoder_folder, str(encoder_folder), {"path": encoder_folder}, asked):
        assert (
            mlkd.configure(teacher=given, student={"layers": 2, "bottleneck": 8}).teacher == asked
        )
    hub = mlkd.configure(teacher="owner/name@main").teacher
    assert (hub.name, hub.revision, hub.package) == ("owner/name", "main", None)
    own = mlkd.configure(eval=sets(corpus)).eval
    assert list(own.sets) == ["dev", "test"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student": "nope"}, "student=nope: no such option; allowed: minilm_narrow, .*"),
        ({"teacher": "nope"}, "teacher=nope: no such option; allowed: all_mpnet, .*"),
        ({"sed": 1}, "sed: no such key; did you mean seed.*"),
        ({"student": {"layer": 2}}, "student.layer: no such key; did you mean student.layers.*"),
        ({"student": {"layers": 0}}, "student.layers=0: input should be greater than or .*"),
    ],
)
def test_wrong_settings_are_refused_in_a_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(mlkd.UserError, match=f"^{message}$"):
        mlkd.configure(**settings)


def test_evaluate_says_what_its_numbers_are_of(
    encoder_folder: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caller: Callable[[], Check],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mlkd.metrics.speed.SETTLE_SECONDS", 0.0)
    file = tmp_path / "numbers.json"
    settings = {"teacher": encoder_folder, "eval": sets(corpus), "accelerator": "cpu"}
    unchanged = caller()
    found = mlkd.evaluate(encoder_folder, **settings)
    assert not (tmp_path / "outputs").exists()
    assert capsys.readouterr().out == ""
    unchanged()
    assert found["model"]["folder"] == found["teacher"]["folder"] == str(encoder_folder)
    assert found["eval"]["root"] == str(corpus)
    assert len(found["scores"]["sets"]["test"]["content"]) == 3
    assert found["environment"]["code"] and found["hardware"] and found["finished"]
    written = mlkd.evaluate(encoder_folder, **settings, output=file)
    assert json.loads(file.read_text()) == json.loads(json.dumps(written))
    assert written["scores"] == found["scores"]
    content = json.loads(file.read_text())
    content["model"] |= {"fingerprint": "another", "folder": "elsewhere"}
    for text in (json.dumps(content), "my notes"):
        file.write_text(text)
        with pytest.raises(mlkd.UserError, match=r"it holds (the evaluation of else|something)"):
            mlkd.evaluate(encoder_folder, **settings, output=file)
        assert file.read_text() == text


def test_a_failed_or_interrupted_evaluation_gives_the_process_back(
    encoder_folder: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, caller: Callable[[], Check]
) -> None:
    from mlkd.metrics.evaluation import Evaluation

    unchanged = caller()

    def disturbed(error: BaseException) -> Callable[..., Any]:
        def speed(*_: Any) -> Any:
            os.environ["LEFT_BEHIND"] = "1"
            torch.set_num_threads(1)
            torch.manual_seed(5)
            torch.backends.cuda.enable_cudnn_sdp(not torch.backends.cuda.cudnn_sdp_enabled())  # type: ignore[no-untyped-call]
            logging.getLogger("mlkd").setLevel(logging.DEBUG)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            raise error

        return speed

    for error in (ValueError("broken"), KeyboardInterrupt(), Interrupted("SIGTERM")):
        monkeypatch.setattr(Evaluation, "speed", disturbed(error))
        with pytest.raises(type(error)):
            mlkd.evaluate(encoder_folder, teacher=encoder_folder, eval=sets(corpus))
        unchanged()


def test_commands_and_functions_share_their_names() -> None:
    import mlkd.evaluate  # binds the module, were it not for the function
    import mlkd.train

    assert mlkd.evaluate is mlkd.api.evaluate  # type: ignore[comparison-overlap]


def test_export_writes_folders_that_load(
    finished_assistant: Path,
    tmp_path: Path,
    caller: Callable[[], Check],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlkd.metrics.speed.SETTLE_SECONDS", 0.0)
    (run,) = finished_assistant.glob("runs/assistant-*")
    unchanged = caller()
    written = mlkd.export(run, format=["compact"], output=tmp_path / "exported")
    unchanged()
    assert capsys.readouterr().out == ""
    assert written.folders == {"compact": tmp_path / "exported" / "compact"}
    assert written.reports["compact"]["model.safetensors"]["mib"] > 0
    vectors = mlkd.load(written.folders["compact"]).encode(ENGLISH)
    assert np.array_equal(vectors, mlkd.load(run).encode(ENGLISH))
    with pytest.raises(mlkd.UserError, match="no such folder"):
        mlkd.export(tmp_path / "nothing")
