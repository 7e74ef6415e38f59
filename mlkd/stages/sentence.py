"""Sentence vectors of both sides of a pair aim at those of a frozen encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlkd.config.stages.sentence import SentenceSettings
from mlkd.data.module import PairBatch
from mlkd.losses import build_loss
from mlkd.losses.mcl import cosine_matrix
from mlkd.losses.vectors import PairVectors
from mlkd.stages.base import Stage, StepOutput
from mlkd.stages.signals import Signals, Vectors


class SentenceStage(Stage):
    """Stages 1, 3 and 4 of Ding et al. (2022), which differ in target and loss alone.

    With the teacher as the target, and the source's vector for both sides, it is the recipe of
    Reimers and Gurevych (2020) as well.
    """

    settings: SentenceSettings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss = build_loss(self.settings.loss)

    @classmethod
    def signals(cls, settings: SentenceSettings) -> Signals:  # type: ignore[override]  # its own
        """Vectors of the target, once a sentence."""
        return Signals(Vectors(settings.translation_target))

    def objective(self, batch: PairBatch) -> StepOutput:
        """Loss of one batch, and on dev how often a translation finds its source in it."""
        vectors = self.vectors(batch)
        # Mixed precision is for the encoder: the products of a similarity matrix are fp32.
        with torch.autocast(self.device.type, enabled=False):
            loss, logs = self.loss(vectors)
            if not self.training:
                logs["accuracy"] = _retrieval(vectors)
        return StepOutput(loss, logs)

    def vectors(self, batch: PairBatch) -> PairVectors:
        """Encode each distinct sentence once and hand out its vector to both sides."""
        return pair_vectors(self.encode(batch.ids, batch.mask).float(), batch)


def pair_vectors(encoded: Tensor, batch: PairBatch) -> PairVectors:
    """The vectors of both sides of a batch's pairs, from those of its sentences ``(U, d)``."""
    assert batch.source_target is not None and batch.translation_target is not None
    return PairVectors(
        encoded[batch.source],
        encoded[batch.translation],
        batch.source_target,
        batch.translation_target,
        batch.sentences[batch.source],
        batch.sentences[batch.translation],
    )


def _retrieval(vectors: PairVectors) -> Tensor:
    """Share of translations whose nearest source by cosine is their own."""
    nearest = cosine_matrix(vectors.translation, vectors.source).argmax(1)
    return (vectors.source_id[nearest] == vectors.source_id).float().mean()
