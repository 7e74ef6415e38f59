"""Token states and attention of every layer aim at those of a frozen encoder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mlkd.config.stages.layers import LayersSettings
from mlkd.data.module import PairBatch
from mlkd.encoders.backbone import backbone_of, layers, longest_input
from mlkd.encoders.forward import Encoded, Taps, encode
from mlkd.losses.attention import AttentionMSE
from mlkd.losses.hidden import HiddenMSE
from mlkd.losses.pair_mse import PairMSE
from mlkd.output.errors import UserError
from mlkd.stages.base import Stage, StepOutput
from mlkd.stages.sentence import pair_vectors
from mlkd.stages.signals import Signals, Vectors
from mlkd.student.initialise import executed_layer_map


class LayersStage(Stage):
    """Phase 1 of Ansell et al. (2023), on the sentences of pairs and without masked input.

    The embedding output aims at the target's, and each layer that is executed at the layer that it
    is mapped to. The target reads the student's tokens in the same step. Sentence vectors may aim
    at the target's cached ones beside that.
    """

    settings: LayersSettings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._aims = self._mapped()
        self.hidden, self.attention, self.pair_mse = HiddenMSE(), AttentionMSE(), PairMSE()

    @classmethod
    def signals(cls, settings: LayersSettings) -> Signals:  # type: ignore[override]  # its own
        """The target in the step; its vectors of each side, if there is a term for them."""
        vectors = None if settings.loss.pair_mse is None else Vectors("translation")
        return Signals(vectors, live=frozenset({"target"}))

    def objective(self, batch: PairBatch) -> StepOutput:
        """Loss of one batch; each distinct sentence counts once in the layers' terms."""
        weights, terms = self.settings.loss, {}
        mine, theirs = self._aims.keys(), self._aims.values()
        with_vectors = weights.pair_mse is not None
        found = encode(self.model, batch.ids, batch.mask, self._taps(mine, with_vectors))
        wanted = self.live["target"].encode(batch.ids, batch.mask, self._taps(theirs, False))
        # Mixed precision is for the encoders.
        with torch.autocast(self.device.type, enabled=False):
            if weights.hidden is not None:
                states = _states(found, [0, *mine]), _states(wanted, [0, *theirs])
                terms["hidden"] = weights.hidden.weight, self.hidden(*states)
            if weights.attention is not None:
                shares = [found.attention[n] for n in mine], [wanted.attention[n] for n in theirs]
                terms["attention"] = weights.attention.weight, self.attention(*shares, batch.mask)
            if weights.pair_mse is not None:
                vectors = pair_vectors(found.sentence.float(), batch)
                terms["pair_mse"] = weights.pair_mse.weight, self.pair_mse(vectors)
            loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
        return StepOutput(loss, {name: value.detach() for name, (_, value) in terms.items()})

    def _taps(self, numbers: Iterable[int], sentence: bool) -> Taps:
        """What an encoder is to give, of layers with these numbers."""
        chosen, loss = frozenset(numbers), self.settings.loss
        return Taps(
            sentence,
            frozenset() if loss.hidden is None else chosen | {0},
            frozenset() if loss.attention is None else chosen,
        )

    def _mapped(self) -> dict[int, int]:
        """Layer of the target by executed layer of the student, both counted from 1.

        Raises:
            UserError: The target is no match for the student.
        """
        target = self.live["target"].encoder
        ours, theirs = backbone_of(self.model), backbone_of(target.model)
        compared = {"hidden_size": "hidden size"}
        if self.settings.loss.attention is not None:
            compared["num_attention_heads"] = "number of attention heads"
        for name, words in compared.items():
            one, other = getattr(ours.config, name), getattr(theirs.config, name)
            if one != other:
                raise UserError(
                    f"stage layers: the {words} of the input target is {other}, the student's "
                    f"is {one}; they must be equal"
                )
        if target.max_tokens > longest_input(theirs):
            raise UserError(
                f"stage layers: data.max_tokens={target.max_tokens}: the input target reads at "
                f"most {longest_input(theirs)} tokens"
            )
        executed, stored = len(layers(ours)), len({*layers(ours)})
        depth = len(layers(theirs))
        if executed == stored > depth:
            raise UserError(
                f"stage layers: the input target has {depth} layers, the student {stored}; it "
                "must have as many at least"
            )
        aims = executed_layer_map(self.settings.map, depth, stored, executed // stored)
        return dict(enumerate(aims, start=1))


def _states(encoded: Encoded, numbers: Iterable[int]) -> list[Tensor]:
    """Token states ``(T, d)`` of layers, which may be asked for more than once."""
    return [encoded.hidden[number] for number in numbers]
