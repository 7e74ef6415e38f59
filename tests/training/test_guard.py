"""Numbers that go wrong stop the run before they are saved."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import at_steps, steady_clock, weights
from safetensors.torch import load_file

from mlkd.config.schema import TrainConfig
from mlkd.data.module import PairBatch
from mlkd.output.errors import UserError
from mlkd.stages.base import Stage
from mlkd.training.guard import Guard, spread


def make_nan(stage: Stage, batch: PairBatch) -> None:
    batch.source_target = batch.source_target.clone()
    batch.source_target[3, 0] = math.nan


def make_huge(stage: Stage, batch: PairBatch) -> None:
    """A finite target with an infinite loss."""
    batch.source_target = torch.full_like(batch.source_target, 1e30)


def run_folder(output: Path) -> Path:
    return max((output / "runs").glob("assistant-*"), key=lambda folder: folder.stat().st_mtime)


@pytest.mark.parametrize("change", [make_nan, pytest.param(make_huge, marks=pytest.mark.slow)])
def test_a_bad_batch_stops_the_run_with_step_sentences_and_checkpoint(
    tiny: Callable[..., TrainConfig], finished_assistant: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Stage, PairBatch], None],
) -> None:  # fmt: skip
    from mlkd.recipes.chain import open_chain
    from mlkd.recipes.run import run_chain

    config = tiny("trainer.save_steps=2", "trainer.save_cost=1", stage="assistant")
    steady_clock(monkeypatch)
    with monkeypatch.context() as patch:
        at_steps(patch, {4}, change)
        with pytest.raises(UserError, match="stopped at step 4, loss") as error:
            run_chain(config)
    folder = run_folder(tmp_path / "out")
    listed = json.loads((folder / "bad-batch.json").read_text())
    assert listed["step"] == 4
    assert len(listed["batch"]) == 16
    store = open_chain(config).pairs
    for item in listed["batch"]:
        ids = [int(store.source[item["pair"]]), int(store.translation[item["pair"]])]
        assert item["sentences"] == ids
        assert item["texts"] == [store.text(i) for i in ids]
    assert f"sentences {', '.join(map(str, listed['batch'][0]['sentences']))}, " in str(error.value)
    assert f"the last good checkpoint is {folder / 'last.ckpt'}" in str(error.value)
    assert "\n" not in str(error.value)
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4  # after the steps 0 to 3
    assert saved["state_dict"]
    assert all(v.isfinite().all() for v in saved["state_dict"].values())
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    run_chain(config)  # the cause is gone: it goes on
    finished = weights(tmp_path / "out", "assistant")
    whole = weights(finished_assistant, "assistant")
    assert all(torch.equal(finished[name], whole[name]) for name in whole)


def test_bad_batches_are_skipped_and_counted_up_to_the_limit(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain

    with monkeypatch.context() as patch:
        at_steps(patch, {1, 3}, make_nan)
        with pytest.raises(UserError, match=r"step 3, .*trainer\.skip_bad_batches=2 leaves"):
            run_chain(tiny("trainer.skip_bad_batches=1", stage="assistant"))
    with monkeypatch.context() as patch:
        at_steps(patch, {1, 3}, make_nan)
        run_chain(tiny("trainer.skip_bad_batches=2", stage="assistant"))
    record = json.loads((run_folder(tmp_path / "out") / "run.json").read_text())
    assert record["training"]["skipped_batches"] == [1, 3]
    trained = load_file(run_folder(tmp_path / "out") / "student" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in trained.values())


def test_a_nan_in_the_last_step_is_not_handed_on(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain

    at_steps(monkeypatch, {5}, make_nan)
    with pytest.raises(UserError, match="stopped at step 5, loss nan"):
        run_chain(
            tiny(
                "trainer.validations=1",
                stage="assistant",
            )
        )
    assert not (run_folder(tmp_path / "out") / "student").exists()


def test_collapse_of_the_embedding_space_stops_the_run(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain

    def same_for_all(stage: Stage, batch: PairBatch) -> None:
        batch.source_target = torch.ones_like(batch.source_target)
        batch.translation_target = batch.source_target

    at_steps(monkeypatch, range(10**6), same_for_all)
    budget = ("stages.assistant.max_steps=300", "stages.assistant.epochs=100")
    with pytest.raises(UserError, match="the embedding space has collapsed: mean cosine") as error:
        run_chain(tiny(*budget, "stages.assistant.lr=0.01", stage="assistant"))
    assert "\n" not in str(error.value)
    assert not (run_folder(tmp_path / "out") / "student").exists()


@pytest.mark.slow
def test_a_student_from_scratch_may_begin_with_the_mean_of_the_targets(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    from mlkd.recipes.run import run_chain

    def spread_at_first(guard: Guard, stage: Stage) -> tuple[float, float]:
        return (1.0, 100.0) if stage.global_step else (0.1, 100.0)

    monkeypatch.setattr(Guard, "_spread", spread_at_first)
    chain = ("assistant.train=false", "stages.bottleneck.enabled=false")
    with pytest.raises(UserError, match="the embedding space has collapsed"):
        run_chain(tiny(*chain, "init.source=base", stage="recurrent"))
    run_chain(tiny(*chain, "init=scratch", stage="recurrent"))
    assert "the embedding space has not spread: mean cosine 1.0000" in caplog.text
    with pytest.raises(UserError, match="the embedding space has collapsed"):
        run_chain(tiny(*chain, "init=scratch", stage="contrastive"))


def test_spread_is_that_of_known_spaces() -> None:
    assert spread(torch.eye(8) * 3) == (pytest.approx(0), pytest.approx(7))  # a simplex
    cosine, _ = spread(torch.ones(5, 4) + torch.eye(5, 4) * 1e-6)
    assert cosine == pytest.approx(1)
    line = torch.linspace(-1, 1, 6)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert spread(line)[1] == pytest.approx(1)
    cosine, _ = spread(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    assert cosine == pytest.approx(1 / 3)
    assert all(math.isnan(x) for x in spread(torch.tensor([[math.nan, 1.0], [0.0, 1.0]])))


def test_the_spread_is_in_the_curve(finished_assistant: Path) -> None:
    record: dict[str, Any] = json.loads((run_folder(finished_assistant) / "run.json").read_text())
    assert record["training"]["curve"]
    for values in record["training"]["curve"]:
        assert -1 <= values["dev/cosine"] <= 1
        assert 1 <= values["dev/rank"] <= 16
