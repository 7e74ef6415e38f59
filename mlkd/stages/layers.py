"""Token states and attention of every layer aim at those of a frozen encoder."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mlkd.config.stages.layers import LayersSettings
from mlkd.data.module import PairBatch
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.coded import CodedEmbedding
from mlkd.encoders.forward import encode
from mlkd.losses.pair_mse import PairMSE
from mlkd.output.errors import UserError
from mlkd.stages.base import Stage, StepOutput, weighted
from mlkd.stages.layer_terms import LayerTerms
from mlkd.stages.masking import masked
from mlkd.stages.sentence import pair_vectors
from mlkd.stages.signals import Signals, Vectors
from mlkd.student.table import OccurringRows


class LayersStage(Stage):
    """Phase 1 of Ansell et al. (2023), on the sentences of pairs.

    The embedding output aims at the target's, and each layer that is executed at the layer that it
    is mapped to. The target reads the student's tokens in the same step. Sentence vectors may aim
    at the target's cached ones beside that.
    """

    settings: LayersSettings
    pieces: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        loss, target = self.settings.loss, self.live["target"].encoder
        rule = self.settings.map
        self._layers = LayerTerms("layers", self.model, target, rule, loss.hidden, loss.attention)
        self.register_buffer("pieces", self._pieces(), persistent=False)
        self.pair_mse = PairMSE()

    @classmethod
    def signals(cls, settings: LayersSettings) -> Signals:  # type: ignore[override]  # its own
        """The target in the step; its vectors of each side, if there is a term for them."""
        vectors = None if settings.loss.pair_mse is None else Vectors("translation")
        return Signals(vectors, live=frozenset({"target"}))

    @classmethod
    def more_pieces(  # type: ignore[override]  # its own
        cls, settings: LayersSettings, tokenizer: PreTrainedTokenizerBase
    ) -> Collection[int]:
        """The mask token, if there is masking."""
        if settings.masking is None:
            return ()
        if tokenizer.mask_token_id is None:
            raise UserError("stage layers: masking needs a tokenizer with a mask token")
        return (int(tokenizer.mask_token_id),)

    def objective(self, batch: PairBatch) -> StepOutput:
        """Loss of one batch; each distinct sentence counts once in the layers' terms."""
        pair_mse = self.settings.loss.pair_mse
        mine, theirs = self._layers.taps(sentence=pair_mse is not None)
        ids = self._read(batch)
        found = encode(self.model, ids, batch.mask, mine)
        wanted = self.live["target"].encode(ids, batch.mask, theirs)
        # Mixed precision is for the encoders.
        with torch.autocast(self.device.type, enabled=False):
            terms = self._layers.terms(found, wanted, batch.mask)
            if pair_mse is not None:
                vectors = pair_vectors(found.sentence.float(), batch)
                terms["pair_mse"] = pair_mse.weight, self.pair_mse(vectors)
            return weighted(terms)

    def _read(self, batch: PairBatch) -> Tensor:
        """Token ids that both encoders read ``(U, S)``; on dev always the same ones."""
        masking = self.settings.masking
        if masking is None:
            return batch.ids
        return masked(
            batch.ids,
            torch.isin(batch.ids, self.pieces),
            share=masking.share,
            mask_id=int(self.model.tokenizer.mask_token_id),
            pieces=self.pieces,
            generator=None if self.training else torch.Generator().manual_seed(0),
        )

    def _pieces(self) -> Tensor:
        """Ids of the pieces of the text ``(n,)``, without special tokens."""
        tokenizer, backbone = self.model.tokenizer, backbone_of(self.model)
        if self.settings.masking is not None and isinstance(
            backbone.get_input_embeddings(), CodedEmbedding
        ):
            raise UserError(f"stage {self.settings.stage}: masking is not for student.codes")
        known = torch.ones(backbone.config.vocab_size, dtype=torch.bool)
        for module in backbone.modules():
            if isinstance(module, OccurringRows):
                known = module.position >= 0
        known[[*tokenizer.all_special_ids]] = False
        return known.nonzero()[:, 0]
