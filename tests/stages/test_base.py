"""What every stage shares: who is trained at which rate."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from conftest import link_settings

from mlkd.encoders.folder import load_folder
from mlkd.stages.base import ParameterGroup
from mlkd.stages.sentence import SentenceStage


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


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_rate_rises_to_its_peak_and_falls_to_nothing(encoder_folder: Path, decay: str) -> None:
    stage = stage_of(encoder_folder, warmup=0.2, decay=decay)
    left = [1 - step / 8 for step in range(9)]
    if decay == "cosine":
        left = [0.5 * (1 - math.cos(math.pi * part)) for part in left]
    assert [stage._rate(step) for step in range(11)] == pytest.approx([0.5, 1.0, *left])
    assert stage._rate(12) == 0.0
    short = stage_of(encoder_folder, warmup=0.0, decay="linear")
    assert [short._rate(0), short._rate(1), short._rate(10)] == pytest.approx([1.0, 1.0, 0.0])


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
