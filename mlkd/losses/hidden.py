"""Mean squared error to another encoder's token states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HiddenMSE(nn.Module):
    """The mean over layers of ``MSE(state, its target)``, all layers counting alike.

    The error of a layer is the mean over tokens and dimensions (Ansell et al., 2023, phase 1, whose
    code averages over padding as well). With several ranks each averages over its own tokens.
    """

    def forward(self, found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
        """Give the scalar loss, in float32.

        Args:
            found: States ``(T, d)`` of each layer; T tokens, none of them padding.
            wanted: Their targets, alike.
        """
        errors = [F.mse_loss(f.float(), w.float()) for f, w in zip(found, wanted, strict=True)]
        return torch.stack(errors).mean()
