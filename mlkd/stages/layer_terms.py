"""The layer-wise terms of a loss: which layer aims at which, and what is compared."""

from __future__ import annotations

from collections.abc import Iterable

from sentence_transformers import SentenceTransformer
from torch import Tensor

from mlkd.config.stages.layers import AttentionConfig, HiddenConfig
from mlkd.encoders.backbone import backbone_of, layers, longest_input
from mlkd.encoders.forward import Encoded, Taps
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.losses.attention import AttentionMSE
from mlkd.losses.hidden import HiddenMSE
from mlkd.output.errors import UserError
from mlkd.student.initialise import executed_layer_map


class LayerTerms:
    """Token states and attention of a student against those of a frozen encoder.

    The embedding output aims at the target's, and each layer that is executed at the layer that it
    is mapped to (Ansell et al., 2023). It has no parameters.

    Attributes:
        aims: Layer of the target by executed layer of the student, both counted from 1.
    """

    def __init__(
        self,
        stage: str,
        model: SentenceTransformer,
        target: FrozenEncoder,
        rule: str,
        hidden: HiddenConfig | None,
        attention: AttentionConfig | None,
    ) -> None:
        """Set up.

        Args:
            stage: Its name, for messages.
            model: The student.
            target: The input ``target``.
            rule: Which layer aims at which (see ``init.layers``).
            hidden: Weight of the token states; None = they are left out.
            attention: The same of attention.

        Raises:
            UserError: The target is no match for the student.
        """
        self._hidden, self._attention = hidden, attention
        self._states, self._shares = HiddenMSE(), AttentionMSE()
        self.aims = self._mapped(stage, model, target, rule)

    def taps(self, sentence: bool, *, of_target: bool = False) -> tuple[Taps, Taps]:
        """What the student is to give, and what the target.

        Args:
            sentence: Whether sentence vectors of the student are wanted as well,
            of_target: and of the target.
        """
        mine, theirs = self.aims.keys(), self.aims.values()
        return self._taps(mine, sentence), self._taps(theirs, of_target)

    def terms(
        self, found: Encoded, wanted: Encoded, mask: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of each term, by name; float32.

        Args:
            found: What the student gave for its taps.
            wanted: What the target gave for its own.
            mask: 1 where a token is no padding ``(U, S)``.
        """
        mine, theirs, terms = self.aims.keys(), self.aims.values(), {}
        if self._hidden is not None:
            states = states_of(found, [0, *mine]), states_of(wanted, [0, *theirs])
            terms["hidden"] = self._hidden.weight, self._states(*states)
        if self._attention is not None:
            shares = [found.attention[n] for n in mine], [wanted.attention[n] for n in theirs]
            terms["attention"] = self._attention.weight, self._shares(*shares, mask)
        return terms

    def _taps(self, numbers: Iterable[int], sentence: bool) -> Taps:
        chosen = frozenset(numbers)
        return Taps(
            sentence,
            frozenset() if self._hidden is None else chosen | {0},
            frozenset() if self._attention is None else chosen,
        )

    def _mapped(
        self, stage: str, model: SentenceTransformer, target: FrozenEncoder, rule: str
    ) -> dict[int, int]:
        ours, theirs = backbone_of(model), backbone_of(target.model)
        compared = {"hidden_size": "hidden size"}
        if self._attention is not None:
            compared["num_attention_heads"] = "number of attention heads"
        for name, words in compared.items():
            one, other = getattr(ours.config, name), getattr(theirs.config, name)
            if one != other:
                raise UserError(
                    f"stage {stage}: the {words} of the input target is {other}, the student's "
                    f"is {one}; they must be equal"
                )
        if target.max_tokens > longest_input(theirs):
            raise UserError(
                f"stage {stage}: data.max_tokens={target.max_tokens}: the input target reads at "
                f"most {longest_input(theirs)} tokens"
            )
        executed, stored = len(layers(ours)), len({*layers(ours)})
        depth = len(layers(theirs))
        if executed == stored > depth:
            raise UserError(
                f"stage {stage}: the input target has {depth} layers, the student {stored}; it "
                "must have as many at least"
            )
        aims = executed_layer_map(rule, depth, stored, executed // stored)
        return dict(enumerate(aims, start=1))


def states_of(encoded: Encoded, numbers: Iterable[int]) -> list[Tensor]:
    """Token states ``(T, d)`` of layers, which may be asked for more than once."""
    return [encoded.hidden[number] for number in numbers]
