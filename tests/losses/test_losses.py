"""Loss terms: against a loop over pairs, and against hand-computed values."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mlkd.config.losses import LossConfig, MCLConfig, PairMSEConfig
from mlkd.losses import build_loss
from mlkd.losses.mcl import MultilingualContrastive
from mlkd.losses.pair_mse import PairMSE
from mlkd.losses.vectors import PairVectors

EYE = torch.eye(2)
SWAPPED = EYE.flip(0)
OWN = torch.arange(2)
PAIRS, WIDTH, TEMPERATURE = 5, 3, 0.3


def vectors(source: Tensor, translation: Tensor) -> PairVectors:
    return PairVectors(source, translation, EYE, EYE, OWN, OWN)


def random_vectors(seed: int) -> PairVectors:
    """Five pairs in three dimensions; two share their source, two others their translation."""
    draw = torch.Generator().manual_seed(seed)
    sides = [torch.randn(PAIRS, WIDTH, generator=draw).double() for _ in range(4)]
    source, translation = (side.requires_grad_() for side in sides[:2])
    ids = torch.tensor([3, 4, 3, 7, 8]), torch.tensor([1, 2, 5, 6, 2])
    return PairVectors(source, translation, *sides[2:], *ids)


# --- a loop over pairs --------------------------------------------------------------------------


def squared_errors(given: Tensor, wanted: Tensor) -> Tensor:
    """Mean over all numbers, one after the other."""
    terms = [(given[i, k] - wanted[i, k]) ** 2 for i in range(PAIRS) for k in range(given.shape[1])]
    return sum(terms, torch.tensor(0.0)) / len(terms)


def pair_mse(v: PairVectors) -> Tensor:
    return squared_errors(v.source, v.source_target) + squared_errors(
        v.translation, v.translation_target
    )


def cosine(one: Tensor, other: Tensor) -> Tensor:
    product = sum((one[k] * other[k] for k in range(WIDTH)), torch.tensor(0.0))
    lengths = [sum((x[k] ** 2 for k in range(WIDTH)), torch.tensor(0.0)) for x in (one, other)]
    return product / (lengths[0].sqrt() * lengths[1].sqrt())


def same(v: PairVectors, i: int, j: int) -> bool:
    """Whether the translation of pair j translates the source of pair i."""
    return bool(v.source_id[i] == v.source_id[j]) or bool(
        v.translation_id[i] == v.translation_id[j]
    )


def similarities(v: PairVectors, wanted: Callable[[int, int], Tensor | float]) -> Tensor:
    terms = [
        (cosine(v.source[i], v.translation[j]) / TEMPERATURE - wanted(i, j) / TEMPERATURE) ** 2
        for i in range(PAIRS)
        for j in range(PAIRS)
    ]
    return sum(terms, torch.tensor(0.0)) / PAIRS**2


def soft(v: PairVectors) -> Tensor:
    return similarities(v, lambda i, j: cosine(v.source_target[i], v.source_target[j]))


def boolean(v: PairVectors) -> Tensor:
    return similarities(v, lambda i, j: float(same(v, i, j)))


def cross_entropy(v: PairVectors) -> Tensor:
    total = torch.tensor(0.0)
    for i in range(PAIRS):
        own = cosine(v.source[i], v.translation[i]) / TEMPERATURE
        rivals = [j for j in range(PAIRS) if j == i or not same(v, i, j)]
        row = sum(
            ((cosine(v.source[i], v.translation[j]) / TEMPERATURE).exp() for j in rivals),
            torch.tensor(0.0),
        )
        column = sum(
            ((cosine(v.source[j], v.translation[i]) / TEMPERATURE).exp() for j in rivals),
            torch.tensor(0.0),
        )
        total = total + (row.log() - own) + (column.log() - own)
    return total / (2 * PAIRS)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("term", "loop"),
    [
        (PairMSE(), pair_mse),
        (MultilingualContrastive("soft", TEMPERATURE), soft),
        (MultilingualContrastive("bool", TEMPERATURE), boolean),
        (MultilingualContrastive("ce", TEMPERATURE), cross_entropy),
    ],
    ids=["pair_mse", "soft", "bool", "ce"],
)
def test_a_term_and_its_gradients_are_those_of_a_loop(
    term: Callable[[PairVectors], Tensor], loop: Callable[[PairVectors], Tensor], seed: int
) -> None:
    found = []
    for compute in (term, loop):
        given = random_vectors(seed)
        value = compute(given)
        value.backward()
        assert given.source.grad is not None
        found.append((value.detach(), given.source.grad, given.translation.grad))
    assert found[0][0].ndim == 0
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-9)


def test_the_sum_is_weighted_and_terms_are_logged_unweighted() -> None:
    config = LossConfig(
        pair_mse=PairMSEConfig(weight=2.0),
        mcl=MCLConfig(weight=0.25, mode="bool", temperature=TEMPERATURE),
    )
    given = random_vectors(0)
    loss, logs = build_loss(config)(given)
    one, other = pair_mse(given).item(), boolean(given).item()
    assert {name: value.item() for name, value in logs.items()} == {
        "pair_mse": pytest.approx(one), "mcl": pytest.approx(other)
    }  # fmt: skip
    assert loss.item() == pytest.approx(2 * one + 0.25 * other)
    assert loss.requires_grad
    assert not any(value.requires_grad for value in logs.values())
    assert list(build_loss(LossConfig(pair_mse=PairMSEConfig())).terms) == ["pair_mse"]


# --- by hand ------------------------------------------------------------------------------------


def test_swapped_translations_cost_one_in_both_terms() -> None:
    swapped = vectors(EYE, SWAPPED)
    assert PairMSE()(swapped).item() == 1.0  # 0 for English + 1 for the translation
    assert MultilingualContrastive("soft", 1.0)(swapped).item() == pytest.approx(1.0)


def test_mcl_is_zero_at_the_teacher_and_ignores_scale() -> None:
    term = MultilingualContrastive("soft", 1.0)
    assert term(vectors(EYE, EYE)).item() == 0.0
    source, translation = torch.randn(2, 2), torch.randn(2, 2)
    scaled = term(vectors(3 * source, 0.5 * translation))
    assert scaled.item() == pytest.approx(term(vectors(source, translation)).item(), abs=1e-6)


def test_cross_entropy_by_hand() -> None:
    loss = MultilingualContrastive("ce", 1.0)(vectors(EYE, EYE)).item()
    assert loss == pytest.approx(-math.log(math.e / (math.e + 1)), abs=1e-6)


def test_bool_mode_aims_at_the_identity() -> None:
    same_targets = PairVectors(EYE, EYE, torch.ones(2, 2), torch.ones(2, 2), OWN, OWN)
    assert MultilingualContrastive("bool", 1.0)(same_targets).item() == 0.0
    assert MultilingualContrastive("soft", 1.0)(same_targets).item() > 0.4


def test_other_translations_of_a_sentence_are_no_negatives() -> None:
    twice = torch.tensor([0, 0, 1])  # one source with two translations
    apart = torch.arange(3)
    source = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    perfect = PairVectors(source, source, source, source, twice, apart)
    assert MultilingualContrastive("bool", 1.0)(perfect).item() == 0.0
    loss = MultilingualContrastive("ce", 1.0)(perfect).item()
    # Rows 0 and 1 have one negative each; row 2 has both translations of the other source.
    by_hand = -(2 * math.log(math.e / (math.e + 1)) + math.log(math.e / (math.e + 2))) / 3
    assert loss == pytest.approx(by_hand, abs=1e-6)
    shared = PairVectors(source, source, source, source, apart, twice)
    assert MultilingualContrastive("ce", 1.0)(shared).item() == pytest.approx(by_hand, abs=1e-6)


def test_translation_ranking_asks_no_teacher() -> None:
    term = MCLConfig(mode="ce", temperature=0.05)
    loss = build_loss(LossConfig(mcl=term))
    pairs = torch.randn(4, 3), torch.randn(4, 3)
    own = torch.arange(4)
    one, other = (
        loss(PairVectors(*pairs, torch.randn(4, 3), torch.randn(4, 3), own, own))[0]
        for _ in range(2)
    )
    assert one.item() == other.item() > 0
