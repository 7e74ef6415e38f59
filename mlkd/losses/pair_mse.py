"""Mean squared error to the targets of both sides."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.losses.vectors import PairVectors


class PairMSE(nn.Module):
    """``MSE(source, its target) + MSE(translation, its target)``.

    Each error is the mean over batch and dimensions (Ding et al., 2022, stages 1 to 4; the targets
    differ from stage to stage).
    """

    def forward(self, vectors: PairVectors) -> Tensor:
        """Give the scalar loss."""
        return F.mse_loss(vectors.source, vectors.source_target) + F.mse_loss(
            vectors.translation, vectors.translation_target
        )
