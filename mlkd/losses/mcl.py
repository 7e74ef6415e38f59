"""Multilingual contrastive learning: the batch's similarities follow the teacher's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.losses.gather import gather_ranks
from mlkd.losses.vectors import PairVectors


class MultilingualContrastive(nn.Module):
    """Compare ``cos(source_i, translation_j)`` of the student with a target matrix ``(B, B)``.

    Modes (Ding et al., 2022, section 3.4 and its ablation):
        ``soft``: mean squared error to the teacher's ``cos(source_i, source_j)``.
        ``bool``: mean squared error to the identity.
        ``ce``: cross-entropy of the identity, rows and columns averaged (InfoNCE both ways).

    With several ranks the matrix is that of the whole global batch.
    """

    def __init__(self, mode: str, temperature: float) -> None:
        """Set up the term.

        Args:
            mode: ``soft``, ``bool`` or ``ce``.
            temperature: Predicted and target similarities are divided by it.
        """
        super().__init__()
        self.mode, self.temperature = mode, temperature

    def forward(self, vectors: PairVectors) -> Tensor:
        """Give the scalar loss."""
        source = gather_ranks(vectors.source)
        translation = gather_ranks(vectors.translation)
        predicted = cosines(source, translation) / self.temperature
        identity = torch.eye(len(source), device=source.device)
        if self.mode == "ce":
            labels = identity.argmax(1)
            rows, columns = F.cross_entropy(predicted, labels), F.cross_entropy(predicted.T, labels)
            return (rows + columns) / 2
        if self.mode == "soft":
            target = gather_ranks(vectors.source_target)
            identity = cosines(target, target)
        return F.mse_loss(predicted, identity / self.temperature)


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of every row of ``left`` ``(B, d)`` with every row of ``right``: ``(B, B)``."""
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T
