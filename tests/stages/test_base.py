"""What every stage shares: who is trained at which rate, what is logged, exact checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import link_settings, take_steps
from torch import nn

from mlkd.data.module import PairBatch
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder
from mlkd.stages.base import ParameterGroup, Stage, StepOutput, weighted
from mlkd.stages.sentence import SentenceStage
from mlkd.training.best import KeepBest


def batch_of(*targets: float) -> PairBatch:
    """A batch of one pair for each target."""
    rows, aims = torch.arange(len(targets)), torch.tensor(targets)[:, None]
    ids = torch.ones(len(targets), 1, dtype=torch.long)
    return PairBatch(ids, ids, rows, rows, rows, aims, aims, rows, 0 * rows)


class Plane(Stage):
    """The height ``t (2 a + 3 b + 4 v)`` over two matrices and a vector, ``t`` a mean of targets.

    Its gradient is ``t (2, 3, 4)``, so that AdamW takes steps of one length. The rate of ``b`` and
    ``v`` is three times as large.
    """

    turns: Any = (None, None)

    def __init__(self, steps: int = 4, **optim: Any) -> None:
        names: Any = nn.ParameterDict({"a": torch.ones(1, 1), "b": torch.ones(1, 1)})
        names["v"] = torch.ones(1)
        super().__init__(names.eval(), link_settings("sentence", {"pair_mse": {}}, **optim), steps)

    def parameter_groups(self) -> list[ParameterGroup]:
        a, *others = self.model.parameters()
        first, second = self.turns
        return [
            ParameterGroup([a], turn=first),
            ParameterGroup(others, rate=3.0, decay=0.5, turn=second),
        ]

    def objective(self, batch: PairBatch) -> StepOutput:
        a, b, v = self.model.parameters()
        assert batch.source_target is not None
        target = batch.source_target.mean()
        height = (2 * a + 3 * b + 4 * v).sum() * target
        return weighted({"height": (1.0, height), "target": (0.0, target)})


class ByTurns(Plane):
    turns = (lambda step: step % 2 == 0, lambda step: step % 2 == 1)


class Watch(L.Callback):
    """What each step has logged and left behind."""

    def __init__(self) -> None:
        self.values: list[list[float]] = [[1.0, 1.0, 1.0]]
        self.gradients: list[list[float | None]] = []
        self.logged: list[dict[str, float]] = []
        self.dev: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *rest: Any) -> None:
        assert module.model.training
        self.values.append([p.item() for p in module.parameters()])
        grads = [p.grad for p in module.parameters()]
        self.gradients.append([None if grad is None else grad.item() for grad in grads])
        self.logged.append({n: float(v) for n, v in trainer.callback_metrics.items()})

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        self.dev.append({n: float(v) for n, v in trainer.callback_metrics.items()})


def watched(stage: Stage, targets: list[float], *callbacks: L.Callback) -> Watch:
    """Take a step for each target; after each look at dev, which has three pairs and one."""
    watch, dev = Watch(), [batch_of(1.0, 1.0, 1.0), batch_of(5.0)]
    take_steps(stage, [batch_of(target) for target in targets], dev, watch, *callbacks)
    return watch


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_rate_rises_to_its_peak_and_falls_to_nothing(decay: str) -> None:
    stage = Plane(10, warmup=0.2, decay=decay)
    left = [1 - step / 8 for step in range(9)]
    if decay == "cosine":
        left = [0.5 * (1 - math.cos(math.pi * part)) for part in left]
    assert [stage._rate(step) for step in range(11)] == pytest.approx([0.5, 1.0, *left])
    assert stage._rate(12) == 0.0
    short = Plane(10, warmup=0.0, decay="linear")
    assert [short._rate(0), short._rate(1), short._rate(10)] == pytest.approx([1.0, 1.0, 0.0])
    long = Plane(10, warmup=0.9, decay=decay)
    assert [long._rate(8), long._rate(9), long._rate(10)] == pytest.approx([1.0, 1.0, 0.0])
    whole = Plane(10, warmup=1.0, decay=decay)
    assert [whole._rate(9), whole._rate(10)] == pytest.approx([1.0, 0.0])


def test_steps_logs_and_dev_means_are_those_computed_by_hand(tmp_path: Path) -> None:
    stage = Plane(warmup=0.5, weight_decay=0.1, clip=0.5)
    best = KeepBest(lambda step: tmp_path / str(step), stage.selects, stage.selects_largest)
    watch = watched(stage, [2.0] * 4, best)
    a, b, v = 1.0, 1.0, 1.0
    for step, rate in enumerate([0.005, 0.01, 0.01, 0.005]):
        height = 2 * a + 3 * b + 4 * v
        norm = 2 * math.sqrt(4 + 9 + 16)
        expected = {"loss": 2 * height, "height": 2 * height, "target": 2.0, "lr": rate}
        logged = {f"train/{name}": value for name, value in expected.items()}
        logged["train/gradient_norm"] = norm
        found = {n: value for n, value in watch.logged[step].items() if n.startswith("train/")}
        assert found == pytest.approx(logged, rel=1e-5)
        assert watch.gradients[step] == pytest.approx([0.5 * 2 * n / norm for n in (2, 3, 4)])
        a = a * (1 - rate * 0.1) - rate
        b, v = (x * (1 - 3 * rate * 0.5) - 3 * rate for x in (b, v))
        assert watch.values[step + 1] == pytest.approx([a, b, v], rel=1e-5)
        height = 2 * a + 3 * b + 4 * v
        assert watch.dev[step]["dev/target"] == pytest.approx(2.0)  # each pair counts once
        assert watch.dev[step]["dev/loss"] == pytest.approx(2 * height, rel=1e-5)
        assert watch.dev[step]["dev/height"] == pytest.approx(2 * height, rel=1e-5)
    assert best.best["step"] == 4  # the loss has fallen
    assert not stage.may_collapse


def test_a_group_stays_as_it_is_when_it_is_not_its_turn() -> None:
    stage = ByTurns(weight_decay=0.1, clip=0.5, warmup=0.0)
    watch = watched(stage, [2.0, 1.0, 3.0, 4.0])
    for step, target in enumerate([2.0, 1.0, 3.0, 4.0]):
        gradients = watch.gradients[step]
        assert [gradient is None for gradient in gradients] == [step % 2 == 1, *[step % 2 == 0] * 2]
        same = [x == y for x, y in zip(watch.values[step], watch.values[step + 1], strict=True)]
        assert same == [step % 2 == 1, *[step % 2 == 0] * 2]
        norm = target * (math.hypot(3, 4) if step % 2 else 2)
        assert watch.logged[step]["train/gradient_norm"] == pytest.approx(norm)


def test_a_step_that_is_left_out_has_no_gradients() -> None:
    stage = Plane()
    for target in (2.0, 3.0):
        stage.objective(batch_of(target)).loss.backward()
        assert stage.gradient_norm().item() == pytest.approx(target * math.sqrt(29))
        stage.drop_gradients()
        assert [p.grad for p in stage.parameters()] == [None] * 3
        assert stage.gradient_norm() == 0.0
        stage.drop_gradients()


def test_random_numbers_go_on_where_a_checkpoint_was_written() -> None:
    saved: dict[str, Any] = {}
    Plane().on_save_checkpoint(saved)
    expected = torch.rand(3)
    stage, again = Plane(), dict[str, Any]()
    stage.on_load_checkpoint(saved)
    stage.on_save_checkpoint(again)  # before the next step has begun
    assert torch.equal(again["rng"], saved["rng"])
    stage.on_train_batch_start(batch_of(1.0), 0)
    assert torch.equal(torch.rand(3), expected)
    stage.on_train_batch_start(batch_of(1.0), 1)  # once alone
    after = torch.rand(3)
    assert not torch.equal(after, expected)
    stage.on_save_checkpoint(again)
    assert not torch.equal(again["rng"], saved["rng"])


def stage_of(folder: Path, **optim: object) -> SentenceStage:
    settings = link_settings("sentence", {"pair_mse": {}}, **optim)  # type: ignore[arg-type]
    return SentenceStage(load_folder(folder), settings, 10)


def test_every_parameter_is_trained_once_and_matrices_decay(encoder_folder: Path) -> None:
    stage = stage_of(encoder_folder, weight_decay=0.1)
    groups = stage.configure_optimizers()["optimizer"].param_groups
    found = [
        (p, group["weight_decay"], group["initial_lr"]) for group in groups for p in group["params"]
    ]
    assert {id(p) for p, _, _ in found} == {id(p) for p in stage.parameters() if p.requires_grad}
    assert len(found) == len({id(p) for p, _, _ in found})
    assert all(decay == (0.1 if p.ndim > 1 else 0.0) for p, decay, _ in found)
    assert {rate for _, _, rate in found} == {0.01}


class Tables(SentenceStage):
    """Trains the embeddings alone."""

    def trained(self) -> nn.Module:
        return backbone_of(self.model).embeddings  # type: ignore[no-any-return]


def test_what_a_stage_does_not_train_has_no_gradient(encoder_folder: Path) -> None:
    stage = Tables(load_folder(encoder_folder), stage_of(encoder_folder).settings, 10)
    trained = {name for name, p in stage.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in stage.named_parameters() if ".embeddings." in name}
    assert len(trained) == 5


class Twofold(SentenceStage):
    """Every other step trains the matrices of layers, at three times the rate; the rest rests."""

    def parameter_groups(self) -> list[ParameterGroup]:
        layers = [p for n, p in self.model.named_parameters() if ".layer." in n and p.ndim > 1]
        return [ParameterGroup(layers, rate=3.0, turn=lambda step: step % 2 == 0)]


def test_decay_without_gradients_is_that_of_the_optimisers_steps(encoder_folder: Path) -> None:
    settings = link_settings("sentence", {"pair_mse": {}}, weight_decay=0.5, warmup=0.2)
    stage = Twofold(load_folder(encoder_folder), settings, 10)
    stage.configure_optimizers()
    parameters = dict(stage.model.named_parameters())
    matrix = next(p for n, p in parameters.items() if ".layer." in n and p.ndim > 1)
    table = next(p for n, p in parameters.items() if "word_embeddings" in n)
    rates = {0: 0.5, 2: 1.0, 4: 0.75}  # of steps 0 to 6, of which 6 was skipped
    expected = 1.0
    for rate in rates.values():
        expected *= 1 - 0.01 * 3.0 * rate * 0.5
    assert [stage._rate(step) for step in rates] == pytest.approx([*rates.values()])
    assert stage.decay_until(matrix, 7, {6}) == pytest.approx(expected)
    assert stage.decay_until(matrix, 7, set()) < expected
    assert stage.decay_until(table, 7, set()) == 1.0  # it is not trained
    always = Plane(warmup=0.5)
    always.configure_optimizers()
    _, matrix, _ = always.model.parameters()
    expected = (1 - 0.005 * 3.0 * 0.5) * (1 - 0.01 * 3.0 * 0.5)
    assert always.decay_until(matrix, 3, {2}) == pytest.approx(expected)
