"""The Python door: what it gives, and that the caller's process stays as it was."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ENGLISH, LINKS, at_steps

import mlkd
from mlkd.config.commands import EvaluateConfig, ExportConfig, MineConfig, PairsConfig
from mlkd.config.inputs import EncoderConfig
from mlkd.metrics.scoring import select_value
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
        "processes": multiprocessing.get_start_method(allow_none=True),
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
    multiprocessing.set_start_method(None, force=True)  # nobody has asked for one
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
        ({"student": "nope"}, "student=nope: no such option; allowed: .*minilm_narrow, .*"),
        ({"teacher": "nope"}, "teacher=nope: no such option; allowed: all_mpnet, .*"),
        ({"sed": 1}, "sed: no such key; did you mean seed.*"),
        ({"student": {"layer": 2}}, "student.layer: no such key; did you mean student.layers.*"),
        ({"student": {"layers": 0}}, "student.layers=0: input should be greater than or .*"),
        (
            {"student": {"bottleneck": None}, "init": "copy", "stages": {"bottleneck": {"lr": 1}}},
            "stages.bottleneck.lr: not read, the link bottleneck needs a student.bottleneck.*",
        ),
        (
            {"student": {"layers": 2}, "budget_mib": 5},
            "student.layers: not read, budget_mib chooses it",
        ),
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
    evaluated = mlkd.evaluate(encoder_folder, **settings)
    assert not (tmp_path / "outputs").exists()
    assert capsys.readouterr().out == ""
    unchanged()
    found = evaluated.content
    assert (evaluated.name, evaluated.file) == (encoder_folder.name, None)
    assert found["model"]["folder"] == found["teacher"]["folder"] == str(encoder_folder)
    assert found["eval"]["root"] == str(corpus)
    assert len(found["scores"]["sets"]["test"]["content"]) == 3
    assert found["environment"]["code"] and found["hardware"] and found["finished"]
    written = mlkd.evaluate(encoder_folder, **settings, output=file)
    assert written.file == file
    assert json.loads(file.read_text()) == json.loads(json.dumps(written.content))
    assert written.scores == evaluated.scores == found["scores"]
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


def as_values(encoder: Path, corpus: Path, output: Path) -> dict[str, Any]:
    """The first link of ``tiny()``, as a call gives it."""
    sizes = {"max_steps": 6, "epochs": 9999, "batch_size": 16}
    return {
        "stage": "assistant",
        "pairs": {"de": corpus / "pairs.en-de.tsv.gz"},
        "data": {"dev_fraction": 0.2, "max_tokens": 16},
        "eval": sets(corpus),
        "teacher": encoder,
        "assistant": {"vocabulary": {"size": 120}},
        "student": {"bottleneck": 4, "layers": 2},
        "trainer": {"precision": "fp32", "threads": 1},
        "stages": dict.fromkeys(LINKS, sizes),
        "output": output,
    }


def test_train_gives_the_student_of_the_same_command(
    encoder_folder: Path,
    finished_assistant: Path,
    corpus: Path,
    tmp_path: Path,
    caller: Callable[[], Check],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (expected,) = finished_assistant.glob("runs/assistant-*")
    unchanged = caller()
    made = mlkd.train(**as_values(encoder_folder, corpus, tmp_path / "out"))
    unchanged()
    assert capsys.readouterr().out == ""
    assert made.runs == tuple((tmp_path / "out" / "runs").glob("assistant-*"))
    assert made.student == made.runs[0] / "student"
    weights = [folder / "student" / "model.safetensors" for folder in (expected, made.runs[0])]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert made.scores == json.loads((made.runs[0] / "run.json").read_text())["metrics"]["scores"]
    assert (made.runs[0] / "table.md").is_file()
    shown: list[Any] = []
    values = as_values(encoder_folder, corpus, tmp_path / "out")
    again = mlkd.train(**values, show=shown.extend)
    assert again == made
    assert [row.name for row in shown] == ["teacher", "assistant"]
    assert shown[-1].scores == made.scores
    assert again.score == select_value(made.scores)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_is_saved_and_the_signal_handed_on(
    encoder_folder: Path,
    corpus: Path,
    tmp_path: Path,
    caller: Callable[[], Check],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(signal.SIGTERM))
    try:
        unchanged = caller()
        values = as_values(encoder_folder, corpus, tmp_path / "out")
        with monkeypatch.context() as patch:
            at_steps(patch, {3}, lambda *_: os.kill(os.getpid(), number))
            kind = KeyboardInterrupt if number == signal.SIGINT else Interrupted
            with pytest.raises(kind):
                mlkd.train(**values)
        unchanged()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ([signal.SIGTERM] if number == signal.SIGTERM else [])
    (run,) = (tmp_path / "out" / "runs").glob("assistant-*")
    assert (run / "last.ckpt").is_file()


def test_training_in_a_thread(encoder_folder: Path, corpus: Path, tmp_path: Path) -> None:
    """Only the main thread may set handlers of signals."""
    made: list[mlkd.Result] = []
    values = as_values(encoder_folder, corpus, tmp_path / "out")
    thread = threading.Thread(target=lambda: made.append(mlkd.train(**values)))
    thread.start()
    thread.join()
    assert made[0].student.is_dir()


def test_what_cannot_be_trained_is_refused_in_a_line(corpus: Path) -> None:
    config = mlkd.configure("seed=1")
    file = corpus / "pairs.en-de.tsv.gz"
    refused: list[tuple[dict[str, Any], str]] = [
        ({"config": config, "seed": 1}, "not both"),
        (
            {"config": "stage=assistant"},
            r"train: 'stage=assistant': give what mlkd.configure\(...\)",
        ),
        ({"trainer": {"devices": 2}}, "trainer.devices and trainer.nodes: 1 process here"),
        (
            {"pairs": {"de": "nothing.tsv"}, "eval": sets(corpus)},
            "nothing.tsv",
        ),
        ({"pairs": {"de": "pairs.docx"}}, "pairs.'de'.=pairs.docx: the end of the name"),
        ({"pairs": {"de": file}, "data": "demo"}, "data: an option or corpora"),
        ({"pairs": file}, "pairs=.*: give files by language"),
        ({"pairs": {"de": 3}}, r"pairs\['de'\]: int; give a file, or a mapping as in data.corpora"),
        ({"pairs": {"pl": file}}, "the demo has no sets in pl"),
        ({"pairs": {"de": {"format": "tsv", "path": "no.tsv", "column": 1}}}, "no such key"),
    ]
    for settings, message in refused:
        with pytest.raises(mlkd.UserError, match=message):
            mlkd.train(**settings)


def test_pairs_are_looked_at_and_mined(corpus: Path, encoder_folder: Path, tmp_path: Path) -> None:
    file, written = corpus / "pairs.en-de.tsv.gz", tmp_path / "pairs.tsv"
    look = mlkd.pairs({"de": file}, show=3, output=written, output_dir=tmp_path / "out")
    lines = written.read_text().splitlines()
    assert (len(look.sample), len(look.store)) == (3, len(lines) - 1)
    values = {"format": "tsv", "path": file, "targets": ["de"]}
    same = mlkd.pairs(data={"corpora": {"de": values}}, output_dir=tmp_path / "out")
    assert same.store.fingerprint == look.store.fingerprint
    texts = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for place, column in zip(texts, (0, 1), strict=True):
        place.write_text("".join(line.split("\t")[column] + "\n" for line in lines[1:9]))
    mined = mlkd.mine(texts, model=encoder_folder, output=tmp_path / "mined.tsv.gz")
    assert mined.pairs == len(mined.sides[0].texts) == 8
    assert (tmp_path / "mined.tsv.gz").is_file()
    with pytest.raises(mlkd.UserError, match=r"data: an option or corpora"):
        mlkd.pairs({"de": file}, data="tsv")
    with pytest.raises(mlkd.UserError, match=r"pairs=data=tsv: give files by language"):
        mlkd.pairs("data=tsv")  # type: ignore[arg-type]
    with pytest.raises(mlkd.UserError, match=r"output: a value is needed"):
        mlkd.mine(texts, model=encoder_folder)


def test_a_whole_configuration_takes_nothing_beside_it(tmp_path: Path) -> None:
    """Commands give theirs, to which nothing is added."""
    schemas = {
        mlkd.evaluate: EvaluateConfig,
        mlkd.export: ExportConfig,
        mlkd.pairs: PairsConfig,
        mlkd.mine: MineConfig,
    }
    for function, schema in schemas.items():
        config = schema.model_construct()
        for beside in ({"output": tmp_path}, {"seed": 0}):
            with pytest.raises(mlkd.UserError, match="not both"):
                function(config, **beside)
        with pytest.raises(mlkd.UserError, match="not both"):
            function(config, "seed=0")


def test_values_reach_what_refers_to_them(corpus: Path) -> None:
    from mlkd.api import _training

    config = mlkd.configure(assistant={"train": True}, seed=3)
    assert (config.seed, config.assistant.seed) == (3, 3)
    assert config == mlkd.configure("seed=3")
    german = _training({"de": corpus / "pairs.en-de.tsv.gz"}, None, {})
    assert {"en", "de"} == {x for one in german.eval.sets.values() for x in one.languages} | {"en"}
    assert [*german.data.corpora] == ["de"]
    assert german.data.corpora["de"].format == "tsv"
