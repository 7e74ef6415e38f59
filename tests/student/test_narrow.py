from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ENGLISH, GERMAN, new_student, stored_tokens
from students import small
from torch import Tensor, nn

from mlkd.config.schema import TrainConfig
from mlkd.data.tokens import TokenStore
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.metrics.size import parameters
from mlkd.student.narrow import Moments, _moments, _narrow, narrowed, neurons_to_keep

TEXTS = [*ENGLISH, *GERMAN]


def test_moments_are_those_of_all_tokens() -> None:
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randn(*size, 5, generator=draw) + 3.0 for size in ((4, 3), (2, 7))]
    moments = Moments(5)
    for batch in batches:
        moments.add(batch)
    rows = torch.cat([batch.flatten(0, 1) for batch in batches]).double()
    mean, covariance = moments.mean_and_covariance()
    torch.testing.assert_close(mean, rows.mean(0))
    expected = rows.T.cov(correction=0)
    expected += 1e-4 * expected.trace() / 5 * torch.eye(5)
    torch.testing.assert_close(covariance, expected)


class Layer(nn.Module):
    """The feed-forward part of a layer, three neurons between two inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense, self.output.dense = nn.Linear(2, 3), nn.Linear(3, 2)
        self.output.LayerNorm = nn.LayerNorm(2)


@torch.no_grad()
def test_a_neuron_that_leaves_goes_into_the_bias_with_its_mean() -> None:
    layer, moments = Layer(), Moments(3)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)  # so they are independent
    moments.add((signs + torch.tensor([5.0, 6.0, 7.0]))[None])
    layer.output.dense.weight.copy_(torch.tensor([[3.0, 2.0, 1.0], [0.0, 0.5, 1.0]]))
    layer.output.dense.bias.copy_(torch.tensor([0.1, 0.2]))
    into = layer.intermediate.dense
    # Behind the norm squared weights add up to 9, 4 + 9 / 4 and 1 + 9; before it to 9, 4 1/4 and 2.
    layer.output.LayerNorm.weight.copy_(torch.tensor([1.0, 3.0]))
    _narrow(layer, moments, 2)
    assert torch.equal(layer.intermediate.dense.weight, into.weight[[0, 2]])
    assert torch.equal(layer.intermediate.dense.bias, into.bias[[0, 2]])
    torch.testing.assert_close(layer.output.dense.weight, torch.tensor([[3.0, 1.0], [0.0, 1.0]]))
    torch.testing.assert_close(layer.output.dense.bias, torch.tensor([0.1 + 2 * 6, 0.2 + 0.5 * 6]))


def test_independent_neurons_stay_by_what_they_carry() -> None:
    variance = torch.tensor([1.0, 4.0, 9.0, 0.25]).double()
    weight = torch.tensor([[3.0, 0.0, 0.5, 4.0], [0.0, 1.0, 0.5, 0.0]]).double()
    # Variance times squared weights: 9, 4, 4.5, 4.
    assert neurons_to_keep(variance.diag(), weight, 2).tolist() == [0, 2]
    assert neurons_to_keep(variance.diag(), weight, 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(5))
def test_the_neuron_that_leaves_is_the_one_whose_absence_least_squares_mends_best(
    seed: int,
) -> None:
    draw = torch.Generator().manual_seed(seed)
    activations = (
        torch.randn(200, 6, generator=draw).double() @ torch.randn(6, 6, generator=draw).double()
    )
    weight = torch.randn(3, 6, generator=draw).double()
    covariance = activations.T @ activations / len(activations)

    def error(kept: list[int]) -> float:
        output = activations @ weight.T
        fitted = torch.linalg.lstsq(activations[:, kept], output).solution
        return float((activations[:, kept] @ fitted - output).square().sum())

    kept = list(range(6))
    for width in (5, 4, 3):
        choices = [[n for n in kept if n != leaving] for leaving in kept]
        kept = min(choices, key=error)
        assert neurons_to_keep(covariance, weight, width).tolist() == kept


@pytest.mark.parametrize("width", [1, 70, 137, 199])
def test_as_many_stay_as_are_wanted(width: int) -> None:
    """Also where the rounds do not divide those that leave."""
    draw = torch.Generator().manual_seed(0)
    variance = torch.randperm(200, generator=draw).double() + 1.0
    kept = neurons_to_keep(variance.diag(), torch.ones(1, 200).double(), width)
    assert kept.tolist() == (variance > 200 - width).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("alike", [True, False])
def test_neurons_that_replace_each_other_do_not_leave_in_one_round(alike: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    half = torch.randn(1000, 256, generator=draw).double()
    noise = 1e-3 * torch.randn(1000, 256, generator=draw).double()
    activations = torch.stack([half, half + noise], dim=2).flatten(1)  # 2n and 2n + 1 are twins
    weight = torch.randn(3, 512, generator=draw).double()
    if alike:
        weight = weight[:, ::2].repeat_interleave(2, dim=1)
    covariance = activations.T @ activations / len(activations)
    kept = neurons_to_keep(covariance + 1e-9 * torch.eye(512).double(), weight, 256)
    assert (kept // 2).tolist() == list(range(256))


def test_neurons_that_cancel_each_other_leave_in_one_round() -> None:
    """Two leave in each round: those that carry nothing, and in the last one those that cancel."""
    weight, covariance = torch.ones(1, 140).double(), torch.eye(140).double()
    weight[0, :126] = 0.0
    weight[0, 126:129] = torch.tensor([1.0, -1.0, 0.5])
    covariance[126, 127] = covariance[127, 126] = 0.999
    # Without one of both 0.002 is lost; without the other too nothing more, without the third 1/4.
    assert neurons_to_keep(covariance, weight, 12).tolist() == list(range(128, 140))


@pytest.mark.parametrize("count", [50, 3000])
def test_activations_are_those_of_sentences_spread_over_all(
    encoder_folder: Path, count: int
) -> None:
    model, draw = load_folder(encoder_folder), np.random.default_rng(0)
    lengths = draw.integers(2, 6, count)
    tokens = TokenStore(draw.integers(5, 60, lengths.sum()), np.cumsum([0, *lengths]), 0)
    found = _moments(model, tokens)
    most = min(count, 2048)
    expected = sum(int(lengths[i * (count - 1) // (most - 1)]) for i in range(most))
    assert [moments.tokens for moments in found.values()] == [expected] * len(found)
    model.encode(TEXTS)  # of which nothing is counted any more
    assert [moments.tokens for moments in found.values()] == [expected] * len(found)


@pytest.fixture(params=["encoder_folder", "xlmr", "recurrent"])
def repetitive(request: pytest.FixtureRequest) -> tuple[object, int]:
    """An encoder half of whose neurons say what others say, or always the same; and how many do
    not."""
    if request.param == "recurrent":
        model = small(request.getfixturevalue("encoder_folder"), 4, layers=2, recurrence=2)
    else:
        model = load_folder(request.getfixturevalue(request.param))
    backbone = backbone_of(model)
    half = backbone.config.intermediate_size // 2
    for layer in set(layers(backbone)):
        into = layer.intermediate.dense
        with torch.no_grad():
            into.weight[half:] = into.weight[:half]
            into.bias[half:] = into.bias[:half]
            into.weight[half : half + 4] = 0.0
            into.bias[half : half + 4] = torch.tensor([3.0, 1.0, -1.0, 0.0])
    return model, half


def test_neurons_that_say_nothing_new_leave_without_a_trace(repetitive: tuple[object, int]) -> None:
    model, half = repetitive
    before = model.encode(TEXTS, convert_to_tensor=True)
    small = narrowed(model, stored_tokens(model, TEXTS), half)
    assert backbone_of(small).config.intermediate_size == half
    for layer in layers(backbone_of(small)):
        assert layer.intermediate.dense.weight.shape[0] == half
        assert layer.output.dense.weight.shape[1] == half
    assert torch.allclose(small.encode(TEXTS, convert_to_tensor=True), before, atol=2e-3)
    assert torch.equal(model.encode(TEXTS, convert_to_tensor=True), before)


def test_outputs_are_fitted_better_than_cut(encoder_folder: Path) -> None:
    model = load_folder(encoder_folder)
    small = narrowed(model, stored_tokens(model, TEXTS), 48)
    cut = narrowed(model, stored_tokens(model, TEXTS), 48)
    for layer, whole in zip(layers(backbone_of(cut)), layers(backbone_of(model)), strict=True):
        into, out = whole.intermediate.dense, whole.output.dense
        rows = layer.intermediate.dense.weight[:, None] == into.weight[None]
        kept = rows.all(-1).float().argmax(1)
        with torch.no_grad():
            layer.output.dense.weight.copy_(out.weight[:, kept])
            layer.output.dense.bias.copy_(out.bias)

    def error(other: object) -> Tensor:
        vectors = (m.encode(TEXTS, convert_to_tensor=True) for m in (model, other))
        return torch.dist(*vectors)

    assert error(small) < 0.5 * error(cut)


def test_a_narrow_student_is_trained_and_saved(
    tiny: Callable[..., TrainConfig], chain: dict[str, Path], tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    config = tiny("student.intermediate=8", stage="bottleneck")
    start, wide = new_student(config), load_folder(chain["bottleneck"] / "student")
    # 16 wide, 8 instead of 64 neurons: two layers of 56 rows, columns and biases less.
    assert parameters(wide)["total"] - parameters(start)["total"] == 2 * 56 * (16 + 16 + 1)
    save_folder(start, tmp_path / "start")
    again = load_folder(tmp_path / "start")
    assert torch.equal(
        again.encode(TEXTS, convert_to_tensor=True), start.encode(TEXTS, convert_to_tensor=True)
    )
    run_chain(config)
    trained = [f for f in (tmp_path / "out/runs").glob("bottleneck-*") if f != chain["bottleneck"]]
    assert backbone_of(load_folder(trained[0] / "student")).config.intermediate_size == 8


def test_a_narrow_student_from_scratch_has_the_same_size(
    tiny: Callable[..., TrainConfig], chain: dict[str, Path]
) -> None:
    sizes = set()
    for init in ("teacher", "base", "scratch"):
        student = new_student(tiny("student.intermediate=8", f"init={init}"))
        sizes.add(parameters(student)["total"])
    assert len(sizes) == 1
