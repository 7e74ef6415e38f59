"""A frozen encoder in the training step: token states and attention are too large for a cache."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mlkd.encoders.backbone import backbone_of, check_supported
from mlkd.encoders.forward import Encoded, Taps, encode
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.machine.hardware import autocast
from mlkd.output.errors import UserError


@dataclass(frozen=True)
class LiveEncoder:
    """A frozen encoder that reads the batches of a student.

    It is no module: whoever holds it neither trains it, nor switches it to train mode, nor writes
    it into a checkpoint.

    Attributes:
        encoder: In eval mode, without gradients, on its device and in its precision.
        own_ids: The encoder's id of each of the student's ``(V,)``; None: they are the same.
    """

    encoder: FrozenEncoder
    own_ids: Tensor | None

    @classmethod
    def of(cls, encoder: FrozenEncoder, tokenizer: PreTrainedTokenizerBase) -> LiveEncoder:
        """Let an encoder read what a student's tokenizer writes.

        Args:
            encoder: BERT-like or XLM-R-like.
            tokenizer: The student's: that of the encoder, or a part of it (see
                :mod:`mlkd.student.trim`).

        Raises:
            UserError: The encoder is of another kind, or does not know a piece of the student's.
        """
        check_supported(backbone_of(encoder.model), "live encoder")
        own = own_ids(tokenizer, encoder.model.tokenizer)
        if torch.equal(own, torch.arange(len(own))):
            return cls(encoder, None)
        return cls(encoder, own.to(encoder.device))

    def encode(self, ids: Tensor, mask: Tensor, taps: Taps) -> Encoded:
        """What the encoder makes of a batch; see :func:`mlkd.encoders.forward.encode`.

        Args:
            ids: The student's token ids ``(U, S)``.
            mask: 1 where ``ids`` is no padding ``(U, S)``.
            taps: What is wanted; layers are the encoder's own.
        """
        device = self.encoder.device
        ids, mask = ids.to(device), mask.to(device)
        if self.own_ids is not None:
            ids = self.own_ids[ids]
        # Not in inference mode: a loss keeps its targets for the backward pass.
        with torch.no_grad(), autocast(self.encoder.precision, device):
            return encode(self.encoder.model, ids, mask, taps)


def own_ids(student: PreTrainedTokenizerBase, encoder: PreTrainedTokenizerBase) -> Tensor:
    """The encoder's id of each id of a student ``(V,)``: the one of the same piece.

    -1 where an id is no piece; no text has it.

    Args:
        student: A fast tokenizer.
        encoder: Another, which treats text alike and knows all pieces of the first.

    Raises:
        UserError: It does not.
    """
    if _manner(student) != _manner(encoder):
        raise UserError(
            "live encoder: its tokenizer treats text in another way than the student's; "
            "token states and attention need the same tokenizer, or a trimmed one"
        )
    known = encoder.get_vocab()
    ids = [*range(max(student.get_vocab().values()) + 1)]
    pieces = student.convert_ids_to_tokens(ids)
    foreign = next((piece for piece in pieces if piece is not None and piece not in known), None)
    if foreign is not None:
        raise UserError(
            f"live encoder: its tokenizer has no piece {foreign!r}, which the student's has; "
            "token states and attention need the same tokenizer, or a trimmed one"
        )
    return torch.tensor([-1 if piece is None else known[piece] for piece in pieces])


def _manner(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """How a fast tokenizer prepares text, and what kind of pieces it cuts it into."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return [state["normalizer"], state["pre_tokenizer"], state["model"]["type"]]
