"""The bottleneck embedding: a factorised word table (Ding et al., 2022, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BottleneckEmbedding(nn.Module):
    """Word embedding of rank ``width``: a narrow table, then a projection without bias.

    Stands in for the backbone's ``nn.Embedding(vocabulary, hidden)`` and stores
    ``vocabulary * width + width * hidden`` parameters instead of ``vocabulary * hidden``.
    """

    def __init__(self, vocabulary: int, width: int, hidden: int, padding_id: int | None) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width, padding_idx=padding_id)
        self.projection = nn.Linear(width, hidden, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids ``(batch, length)`` to vectors ``(batch, length, hidden)``."""
        vectors: Tensor = self.projection(self.table(ids))
        return vectors

    @torch.no_grad()
    def whole(self) -> Tensor:
        """The table that it stands in for ``(vocabulary, hidden)``."""
        return (self.table.weight.double() @ self.projection.weight.double().T).float()

    @torch.no_grad()
    def factorise(self, embedding: Tensor, weight: Tensor) -> None:
        """Set table and projection to the best approximation of a full word table.

        Minimises the sum of the rows' squared errors times their weights. The weighted truncated
        SVD needs only the ``hidden x hidden`` second moment, so vocabularies of any size are cheap:
        the projection holds its leading eigenvectors, the table the rows' coordinates; both share
        the singular values evenly.

        Args:
            embedding: Full table ``(vocabulary, hidden)``.
            weight: How much each row counts, positive, ``(vocabulary,)``.
        """
        width = self.table.embedding_dim
        rows, shares = embedding.double(), weight.double() / weight.sum()
        values, vectors = torch.linalg.eigh((rows * shares[:, None]).T @ rows)
        basis = vectors[:, -width:].flip(1)  # (hidden, width)
        scale = values[-width:].flip(0).clamp_min(1e-12).pow(0.25)
        # Weighted with their shares, the rows' coordinates have standard deviation sqrt(value);
        # dividing by its root leaves both factors with the same spread: one learning rate suits.
        self.table.weight.copy_((rows @ basis) / scale)
        self.projection.weight.copy_(basis * scale)
