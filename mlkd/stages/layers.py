"""Token states and attention of every layer aim at those of a frozen encoder."""

from __future__ import annotations

from typing import Any

import torch

from mlkd.config.stages.layers import LayersSettings
from mlkd.data.module import PairBatch
from mlkd.encoders.forward import encode
from mlkd.losses.pair_mse import PairMSE
from mlkd.stages.base import Stage, StepOutput, weighted
from mlkd.stages.layer_terms import LayerTerms
from mlkd.stages.sentence import pair_vectors
from mlkd.stages.signals import Signals, Vectors


class LayersStage(Stage):
    """Phase 1 of Ansell et al. (2023), on the sentences of pairs and without masked input.

    The embedding output aims at the target's, and each layer that is executed at the layer that it
    is mapped to. The target reads the student's tokens in the same step. Sentence vectors may aim
    at the target's cached ones beside that.
    """

    settings: LayersSettings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        loss, target = self.settings.loss, self.live["target"].encoder
        rule = self.settings.map
        self._layers = LayerTerms("layers", self.model, target, rule, loss.hidden, loss.attention)
        self.pair_mse = PairMSE()

    @classmethod
    def signals(cls, settings: LayersSettings) -> Signals:  # type: ignore[override]  # its own
        """The target in the step; its vectors of each side, if there is a term for them."""
        vectors = None if settings.loss.pair_mse is None else Vectors("translation")
        return Signals(vectors, live=frozenset({"target"}))

    def objective(self, batch: PairBatch) -> StepOutput:
        """Loss of one batch; each distinct sentence counts once in the layers' terms."""
        pair_mse = self.settings.loss.pair_mse
        mine, theirs = self._layers.taps(sentence=pair_mse is not None)
        found = encode(self.model, batch.ids, batch.mask, mine)
        wanted = self.live["target"].encode(batch.ids, batch.mask, theirs)
        # Mixed precision is for the encoders.
        with torch.autocast(self.device.type, enabled=False):
            terms = self._layers.terms(found, wanted, batch.mask)
            if pair_mse is not None:
                vectors = pair_vectors(found.sentence.float(), batch)
                terms["pair_mse"] = pair_mse.weight, self.pair_mse(vectors)
            return weighted(terms)
