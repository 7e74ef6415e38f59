from __future__ import annotations

import math

import pytest
import torch

from mlkd.config.losses import LossConfig, MCLConfig, PairMSEConfig
from mlkd.losses import build_loss
from mlkd.losses.mcl import MultilingualContrastive
from mlkd.losses.pair_mse import PairMSE
from mlkd.losses.vectors import PairVectors

EYE = torch.eye(2)
SWAPPED = EYE.flip(0)
OWN = torch.arange(2)


def vectors(source: torch.Tensor, translation: torch.Tensor) -> PairVectors:
    return PairVectors(source, translation, EYE, EYE, OWN, OWN)


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


def test_temperature_is_applied() -> None:
    hot, cold = (MultilingualContrastive("soft", t)(vectors(EYE, SWAPPED)) for t in (1.0, 0.5))
    assert cold.item() == pytest.approx(4 * hot.item())


def test_cross_entropy_by_hand() -> None:
    loss = MultilingualContrastive("ce", 1.0)(vectors(EYE, EYE)).item()
    e = torch.tensor(1.0).exp().item()
    assert loss == pytest.approx(-torch.tensor(e / (e + 1)).log().item(), abs=1e-6)


def test_bool_mode_aims_at_the_identity() -> None:
    same = PairVectors(EYE, EYE, torch.ones(2, 2), torch.ones(2, 2), OWN, OWN)
    assert MultilingualContrastive("bool", 1.0)(same).item() == 0.0
    assert MultilingualContrastive("soft", 1.0)(same).item() > 0.4


def test_other_translations_of_a_sentence_are_no_negatives() -> None:
    twice = torch.tensor([0, 0, 1])  # one source with two translations
    apart = torch.arange(3)
    source = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    perfect = PairVectors(source, source, source, source, twice, apart)
    assert MultilingualContrastive("bool", 1.0)(perfect).item() == 0.0
    e = torch.tensor(1.0).exp().item()
    loss = MultilingualContrastive("ce", 1.0)(perfect).item()
    # Rows 0 and 1 have one negative each; row 2 has both translations of the other source.
    by_hand = -(2 * math.log(e / (e + 1)) + math.log(e / (e + 2))) / 3
    assert loss == pytest.approx(by_hand, abs=1e-6)
    shared = PairVectors(source, source, source, source, apart, twice)
    assert MultilingualContrastive("ce", 1.0)(shared).item() == pytest.approx(by_hand, abs=1e-6)


def test_weights_are_applied_and_terms_logged_unweighted() -> None:
    config = LossConfig(pair_mse=PairMSEConfig(weight=2.0), mcl=MCLConfig(weight=3.0))
    loss, logs = build_loss(config)(vectors(EYE, SWAPPED))
    assert {k: v.item() for k, v in logs.items()} == {"pair_mse": 1.0, "mcl": 1.0}
    assert loss.item() == 5.0


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
