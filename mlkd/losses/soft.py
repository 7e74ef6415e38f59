"""What another encoder says of a text: its soft label, or the cosine of two sentences."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.config.labelled import Kind


class Soft(nn.Module):
    """Cross-entropy to soft labels of a classification; squared error of cosines of a similarity.

    The first is ``-sum softmax(z_T / t) log softmax(z_S / t)`` over the classes, its mean over the
    batch, and without a factor t² (Ansell et al., 2023, phase 2).
    """

    def __init__(self, kind: Kind, temperature: float) -> None:
        """Set up for labels of a kind; the temperature is of classifications."""
        super().__init__()
        self._kind, self._temperature = kind, temperature

    def forward(self, found: Tensor, wanted: Tensor) -> Tensor:
        """Give the scalar loss.

        Args:
            found: Logits ``(B, C)``, or cosines ``(B,)``.
            wanted: Those of the other encoder, alike; without gradients.
        """
        return self.errors(found, wanted).mean()

    def errors(self, found: Tensor, wanted: Tensor) -> Tensor:
        """The same of each row ``(B,)``."""
        if self._kind == "similarity":
            return F.mse_loss(found, wanted, reduction="none")
        shares = (wanted / self._temperature).softmax(dim=1)
        surprise = -(found / self._temperature).log_softmax(dim=1)
        return (shares * surprise).sum(dim=1)
