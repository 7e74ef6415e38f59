"""What people said of a text: its label, or the score of two sentences."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.config.labelled import Kind


class Gold(nn.Module):
    """Cross-entropy of a classification; squared error of the cosine to the score of a similarity.

    Both are means over the batch. The second is that of Reimers and Gurevych (2019), with scores
    from 0 to 1.
    """

    def __init__(self, kind: Kind) -> None:
        """Set up for labels of a kind."""
        super().__init__()
        self._kind = kind

    def forward(self, found: Tensor, value: Tensor) -> Tensor:
        """Give the scalar loss.

        Args:
            found: Logits ``(B, C)``, or cosines ``(B,)``.
            value: Index of each label, or the score ``(B,)``.
        """
        if self._kind == "classification":
            return F.cross_entropy(found, value.long())
        return F.mse_loss(found, value.to(found.dtype))
