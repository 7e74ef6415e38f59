"""Mean squared error to another encoder's attention probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AttentionMSE(nn.Module):
    """The mean over layers of ``MSE(probabilities, their targets)``, all layers counting alike.

    The error of a layer is the mean over heads and over the entries whose query and key are both
    tokens of the sentence (Ansell et al., 2023, phase 1, whose code keeps the queries of padding).
    With several ranks each averages over its own entries.
    """

    def forward(self, found: Sequence[Tensor], wanted: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Give the scalar loss, in float32.

        Args:
            found: Probabilities ``(U, heads, S, S)`` of each layer.
            wanted: Their targets, alike.
            mask: 1 where a token is no padding ``(U, S)``; what stands elsewhere counts for
                nothing.
        """
        real = mask.bool()
        entry = real[:, None, :, None] & real[:, None, None, :]  # (U, 1, S, S)
        errors = []
        for f, w in zip(found, wanted, strict=True):
            difference = (f.float() - w.float()).masked_fill(~entry, 0.0)
            errors.append(difference.square().sum() / (entry.sum() * f.shape[1]))
        return torch.stack(errors).mean()
