"""Vectors of both sides of a pair, and what a stage makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ENGLISH, GERMAN, link_settings, stored_tokens
from torch import Tensor, nn

from mlkd.data.module import PairBatch
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder
from mlkd.losses.vectors import PairVectors
from mlkd.stages.embedding import EmbeddingStage
from mlkd.stages.sentence import SentenceStage, pair_vectors

TEXTS = [*ENGLISH[:2], *GERMAN[:3]]
SOURCE, TRANSLATION = [0, 1, 1], [3, 2, 4]
"""Sides of three pairs over five sentences: one source has two translations."""


def batch(ids: Tensor, mask: Tensor, width: int) -> PairBatch:
    targets = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(5))
    return PairBatch(
        ids=ids,
        mask=mask,
        sentences=torch.tensor([10, 11, 12, 13, 14]),
        source=torch.tensor(SOURCE),
        translation=torch.tensor(TRANSLATION),
        source_target=targets[0],
        translation_target=targets[1],
        pairs=torch.arange(3),
        domain=torch.zeros(3, dtype=torch.long),
    )


def stage_of(folder: Path, kind: type[SentenceStage] = SentenceStage) -> SentenceStage:
    name = "embedding" if kind is EmbeddingStage else "sentence"
    loss = {"pair_mse": {"weight": 1.0}, "mcl": {"weight": 1.0, "mode": "ce", "temperature": 0.1}}
    return kind(load_folder(folder), link_settings(name, loss), 10)


def of_texts(stage: SentenceStage, width: int = 16) -> PairBatch:
    ids, mask = stored_tokens(stage.model, TEXTS).padded(np.arange(len(TEXTS)))
    return batch(torch.from_numpy(ids), torch.from_numpy(mask), width)


def by_hand(encoded: Tensor, given: PairBatch) -> PairVectors:
    """Pair by pair."""
    assert given.source_target is not None and given.translation_target is not None
    return PairVectors(
        torch.stack([encoded[i] for i in SOURCE]),
        torch.stack([encoded[i] for i in TRANSLATION]),
        given.source_target,
        given.translation_target,
        torch.tensor([10 + i for i in SOURCE]),
        torch.tensor([10 + i for i in TRANSLATION]),
    )


def test_each_side_has_the_vector_and_the_target_of_its_sentence() -> None:
    given = batch(torch.zeros(5, 1), torch.ones(5, 1), 4)
    encoded = torch.randn(5, 4)
    found, wanted = pair_vectors(encoded, given), by_hand(encoded, given)
    for name, value in vars(wanted).items():
        assert torch.equal(getattr(found, name), value), name


@pytest.mark.parametrize("kind", [SentenceStage, EmbeddingStage])
def test_the_loss_is_that_of_sentences_alone(
    encoder_folder: Path, kind: type[SentenceStage]
) -> None:
    stage = stage_of(encoder_folder, kind).eval()
    given = of_texts(stage)
    rows = [ids[mask.bool()][None] for ids, mask in zip(given.ids, given.mask, strict=True)]
    embeddings = backbone_of(stage.model).embeddings
    alone = [
        embeddings(input_ids=row)[0].mean(0)
        if kind is EmbeddingStage
        else stage.model({"input_ids": row, "attention_mask": torch.ones_like(row)})[
            "sentence_embedding"
        ][0]
        for row in rows
    ]
    with torch.no_grad():
        output = stage.objective(given)
        loss, _ = stage.loss(by_hand(torch.stack(alone), given))
    torch.testing.assert_close(output.loss, loss, rtol=1e-4, atol=0)


class _Loss(nn.Module):
    """Takes whatever vectors it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[PairVectors, bool]] = []

    def forward(self, vectors: PairVectors) -> tuple[Tensor, dict[str, Tensor]]:
        self.seen.append((vectors, torch.is_autocast_enabled("cpu")))
        return torch.zeros(()), {}


def test_mixed_precision_ends_with_the_encoder(
    encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, loss = stage_of(encoder_folder), _Loss()
    monkeypatch.setattr(stage, "loss", loss)
    with torch.autocast("cpu", torch.bfloat16):
        stage.objective(of_texts(stage))
    ((vectors, mixed),) = loss.seen
    assert vectors.source.dtype == vectors.translation.dtype == torch.float32
    assert not mixed


def test_the_accuracy_on_dev_is_how_many_translations_find_their_source(
    encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the cosine, with a source that comes twice found in either place."""
    stage = stage_of(encoder_folder)
    given = of_texts(stage, 2)
    # Sources 0, 1, 1 and translations 3, 2, 4: the first finds 1 by the cosine and 0 by the
    # product, the other two find a 1.
    encoded = torch.tensor([[9.0, 0.0], [1.0, 1.0], [0.1, 0.2], [2.0, 1.0], [0.0, 3.0]])
    monkeypatch.setattr(stage, "encode", lambda ids, mask: encoded)
    assert "accuracy" not in stage.train().objective(given).logs
    assert stage.eval().objective(given).logs["accuracy"].item() == pytest.approx(2 / 3)
    encoded[3] = torch.tensor([4.0, 1.0])  # nearer to its source
    assert stage.objective(given).logs["accuracy"].item() == 1.0
    encoded[2] = torch.tensor([2.0, 0.1])
    assert stage.objective(given).logs["accuracy"].item() == pytest.approx(2 / 3)
