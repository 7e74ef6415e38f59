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
        ``bool``: mean squared error to 1 where translation j translates source i, else 0.
        ``ce``: cross-entropy of the pair, rows and columns averaged (InfoNCE both ways); other
        translations of the same sentence are left out, since they are no negatives.

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
        predicted = cosine_matrix(source, translation) / self.temperature
        if self.mode == "soft":
            target = gather_ranks(vectors.source_target)
            return F.mse_loss(predicted, cosine_matrix(target, target) / self.temperature)
        match = _same(vectors.source_id) | _same(vectors.translation_id)
        if self.mode == "bool":
            return F.mse_loss(predicted, match.float() / self.temperature)
        own = torch.arange(len(source), device=source.device)
        others = match & (own != own[:, None])
        predicted = predicted.masked_fill(others, -torch.inf)
        return (F.cross_entropy(predicted, own) + F.cross_entropy(predicted.T, own)) / 2


def _same(sentence: Tensor) -> Tensor:
    """Which pairs of all ranks share a sentence ``(B, B)``, from each pair's sentence ``(B,)``."""
    every = gather_ranks(sentence)
    return every == every[:, None]


def cosine_matrix(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of every row of ``left`` ``(B, d)`` with every row of ``right``: ``(B, B)``."""
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).T
