"""Interrupted in the middle of an epoch, a run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    at_steps,
    configure,
    run_until,
    steady_clock,
    tiny_settings,
    weights,
    write_corpus,
)

from mlkd.config.schema import TrainConfig
from mlkd.data.module import PairBatch
from mlkd.output.errors import Interrupted
from mlkd.stages.base import Stage
from mlkd.training.checkpoint import Checkpoint

BUDGET = (
    "stages.assistant.max_steps=40",  # epochs of 15 steps
    "stages.assistant.dropout=0.1",
    "trainer.validations=3",
)


def results(output: Path) -> tuple[dict[str, torch.Tensor], str, Any]:
    """Weights, logged steps, and what was selected."""
    (folder,) = (output / "runs").glob("assistant-*")
    training = json.loads((folder / "run.json").read_text())["training"]
    curves = (folder / "curves/metrics.csv").read_text()
    return weights(output, "assistant"), curves, [training["curve"], training["best"]]


def assert_same(output: Path, expected: Path) -> None:
    found, whole = results(output), results(expected)
    assert found[1:] == whole[1:]
    assert all(torch.equal(found[0][name], whole[0][name]) for name in whole[0])


def time_is_up(stage: Stage, batch: PairBatch) -> None:
    (checkpoint,) = (c for c in stage.trainer.callbacks if isinstance(c, Checkpoint))
    checkpoint._deadline = 0.0


@pytest.fixture(scope="module")
def whole(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of the same chain, undisturbed."""
    from mlkd.recipes.run import run_chain

    folder = tmp_path_factory.mktemp("whole")
    corpus, output = write_corpus(folder / "corpus"), folder / "out"
    settings = tiny_settings(encoder_folder, corpus, output)
    run_chain(configure(*settings, *BUDGET, "stage=assistant"))
    return output


@pytest.mark.parametrize(
    ("act", "reason", "steps"),  # 14 steps are a validation
    [
        (lambda *_: os.kill(os.getpid(), signal.SIGTERM), "SIGTERM", (13, 36)),
        (lambda *_: os.kill(os.getpid(), signal.SIGINT), "SIGINT", (23,)),
        pytest.param(
            lambda *_: os.kill(os.getpid(), signal.SIGUSR2),
            "SIGUSR2",
            (36,),
            marks=pytest.mark.slow,
        ),
        pytest.param(time_is_up, "time limit", (13,), marks=pytest.mark.slow),
    ],
    ids=["SIGTERM", "Ctrl-C", "SIGUSR2", "time limit"],
)
def test_it_saves_first_and_resumes_exactly(
    tiny: Callable[..., TrainConfig], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, act: Callable[[Stage, PairBatch], None], reason: str,
    steps: tuple[int, ...],
) -> None:  # fmt: skip
    from mlkd.recipes.run import run_chain

    config = tiny(*BUDGET, stage="assistant")
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
    handlers = [signal.getsignal(number) for number in numbers]
    for step in steps:
        with monkeypatch.context() as patch:
            at_steps(patch, {step}, act)
            with pytest.raises(Interrupted, match=reason):
                run_chain(config)
        (path,) = (tmp_path / "out/runs").glob("*/last.ckpt")
        saved = torch.load(path, weights_only=True)
        assert saved["global_step"] == step + 1  # the step under way is finished first
        assert json.loads(path.with_name("run.json").read_text())["status"] == "interrupted"
    assert [signal.getsignal(number) for number in numbers] == handlers
    caplog.set_level("INFO")
    run_chain(config)
    assert "assistant: resumed (it was interrupted)" in caplog.text
    assert_same(tmp_path / "out", whole)
    assert not list((tmp_path / "out/runs").glob("*/last.ckpt"))


def test_a_second_ctrl_c_does_not_wait(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain

    def twice(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    at_steps(monkeypatch, {13}, twice)
    with pytest.raises(Interrupted, match="SIGINT"):
        run_chain(tiny(*BUDGET, stage="assistant"))
    (path,) = (tmp_path / "out/runs").glob("*/run.json")
    assert json.loads(path.read_text())["status"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Interrupted)]
)
def test_a_signal_before_the_first_step_is_no_failure(
    tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    kind: type[BaseException],
) -> None:
    """Lightning would end the process, with a status of its own."""
    from mlkd.data.module import ParallelPairs
    from mlkd.recipes.run import run_chain

    load = ParallelPairs.train_dataloader

    def interrupted(data: ParallelPairs) -> Any:
        signal.raise_signal(number)
        return load(data)

    before = signal.getsignal(number)
    monkeypatch.setattr(ParallelPairs, "train_dataloader", interrupted)
    with pytest.raises(kind):
        run_chain(tiny(*BUDGET, stage="assistant"))
    (path,) = (tmp_path / "out/runs").glob("*/run.json")
    assert json.loads(path.read_text())["status"] == "interrupted"
    assert signal.getsignal(number) == before


@pytest.mark.slow
def test_a_run_goes_on_in_the_precision_it_began_with(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain

    config = tiny("stages.assistant.max_steps=4", "trainer.precision=auto", stage="assistant")
    monkeypatch.setattr("mlkd.machine.hardware._cpu_info", lambda field: ["avx512_bf16"])
    run_until(config, 1)
    monkeypatch.setattr("mlkd.machine.hardware._cpu_info", lambda field: ["avx2"])
    run_chain(config)
    (record,) = (tmp_path / "out/runs").glob("*/run.json")
    assert json.loads(record.read_text())["training"]["precision"] == "bf16"


@pytest.mark.slow
def test_a_second_stop_before_the_first_step_changes_nothing(
    tiny: Callable[..., TrainConfig], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain

    def starts(self: Checkpoint, trainer: Any, module: Any) -> None:
        self._deadline = 0.0

    config = tiny(*BUDGET, stage="assistant")
    run_until(config, 13)
    (path,) = (tmp_path / "out/runs").glob("*/last.ckpt")
    first = path.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "on_train_start", starts)
        with pytest.raises(Interrupted, match="time limit"):
            run_chain(config)
    assert path.stat().st_mtime_ns > first
    assert torch.load(path, weights_only=True)["global_step"] == 14
    run_chain(config)
    assert_same(tmp_path / "out", whole)


def test_a_crash_goes_on_from_the_last_checkpoint(
    tiny: Callable[..., TrainConfig], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain

    def crash(stage: Stage, batch: PairBatch) -> None:
        raise RuntimeError("the lights went out")

    steady_clock(monkeypatch)
    config = tiny(*BUDGET, "trainer.save_steps=7", "trainer.save_cost=1", stage="assistant")
    for step, saved in ((5, None), (38, 35)):
        with monkeypatch.context() as patch:
            at_steps(patch, {step}, crash)
            with pytest.raises(RuntimeError, match="lights"):
                run_chain(config)
        paths = list((tmp_path / "out/runs").glob("*/last.ckpt"))
        steps = [torch.load(path, weights_only=True)["global_step"] for path in paths]
        assert steps == ([] if saved is None else [saved])
    run_chain(config)
    assert_same(tmp_path / "out", whole)
    (record,) = (tmp_path / "out/runs").glob("*/run.json")
    # Each step before the crash took a second of the steady clock.
    assert json.loads(record.read_text())["training"]["seconds"] > 35


@pytest.mark.slow
def test_a_student_is_made_once(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it starts with is in no checkpoint where it is not trained."""
    from mlkd.recipes.run import run_chain

    def another(*_: object) -> None:
        raise AssertionError("made again")

    run_chain(tiny(stage="assistant"))
    config = tiny(stage="bottleneck")
    run_until(config, 1)
    (start,) = (tmp_path / "out/runs").glob("bottleneck-*/start")
    with monkeypatch.context() as patch:
        patch.setattr("mlkd.recipes.chain.new_student", another)
        run_chain(config)
    assert not start.exists()


@pytest.mark.slow
def test_saving_takes_no_more_than_its_share(
    tiny: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from mlkd.recipes.run import run_chain

    caplog.set_level("INFO")
    steady_clock(monkeypatch)
    for cost, output in ((1.0, "often"), (0.02, "seldom")):
        run_chain(
            tiny(*BUDGET, "stages.assistant.max_steps=20", "trainer.save_steps=1",
                 f"trainer.save_cost={cost}", f"output_dir={tmp_path / output}", stage="assistant")
        )  # fmt: skip
    often, seldom = (
        json.loads(next((tmp_path / o / "runs").glob("*/run.json")).read_text())["training"]
        for o in ("often", "seldom")
    )
    assert often["checkpoints"]["saved"] == 19
    # The n-th is due once 0.125 n s are 2 % of the seconds until then.
    assert seldom["checkpoints"]["saved"] == 3  # steps 1, 13, 19
    assert "they come less often, so that they take less than 2 % of the time" in caplog.text
    assert_same(tmp_path / "often", tmp_path / "seldom")


def test_a_signal_in_the_last_step_stops_the_chain_after_the_hand_over(
    tiny: Callable[..., TrainConfig], whole: Path, tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    run_until(tiny(*BUDGET, stage="recurrent"), 39, signal.SIGUSR2)
    assert [path.name.split("-")[0] for path in (tmp_path / "out/runs").glob("*-*")] == [
        "assistant"
    ]
    assert_same(tmp_path / "out", whole)
    run_chain(tiny(*BUDGET, stage="assistant"))


def test_after_the_time_limit_no_link_is_begun(
    tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    with pytest.raises(Interrupted, match="time limit"):
        run_chain(tiny("trainer.max_hours=1e-9", stage="assistant"))
    assert not list((tmp_path / "out/runs").glob("assistant-*"))
    run_chain(tiny(stage="assistant"))


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(900)
def test_processes_that_want_the_same_chain_share_the_work(
    encoder_folder: Path, corpus: Path, tmp_path: Path
) -> None:
    settings = tiny_settings(encoder_folder, corpus, tmp_path / "out", 600)
    command = [sys.executable, "-m", "mlkd.train", "stage=assistant", *settings]
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 2, said
    assert sum("assistant: ran (" in text for text in said) == 1
    assert sum("assistant: reused (" in text for text in said) == 1
    assert sum("waiting for " in text for text in said) >= 1
    assert sum("vectors of teacher" in text for text in said) == 1
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("*.lock"))
