"""The coded embedding: a word table by product quantisation (Jégou et al., 2011)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CENTROIDS = 256
"""Of each part of a row, so that a code is a byte."""


class CodedEmbedding(nn.Module):
    """Word embedding whose rows are cut into ``M`` parts, each one of 256 centroids of that part.

    Stands in for the backbone's ``nn.Embedding(vocabulary, hidden)`` and stores a byte a part of
    each row, ``vocabulary * M``, and ``256 * hidden`` numbers. In training the codes stay and the
    centroids learn.

    Attributes:
        codes: Centroid of each part of each row ``(vocabulary, M)``, uint8.
        centroids: ``(M, 256, hidden / M)``.
    """

    codes: Tensor
    _first: Tensor

    def __init__(self, vocabulary: int, parts: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(vocabulary, parts, dtype=torch.uint8))
        self.centroids = nn.Parameter(torch.zeros(parts, CENTROIDS, hidden // parts))
        first = torch.arange(parts) * CENTROIDS
        self.register_buffer("_first", first, persistent=False)

    def reset_parameters(self) -> None:
        """Random codes and centroids, so that rows vary as those of ``nn.Embedding`` do."""
        self.codes.random_(CENTROIDS)
        nn.init.normal_(self.centroids)

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids ``(batch, length)`` to vectors ``(batch, length, hidden)``."""
        found = F.embedding(self.codes[ids] + self._first, self.centroids.flatten(0, 1))
        return found.flatten(-2)

    @torch.no_grad()
    def whole(self) -> Tensor:
        """The table that it stands in for ``(vocabulary, hidden)``."""
        table: Tensor = self(torch.arange(len(self.codes), device=self.codes.device))
        return table

    @torch.no_grad()
    def select(self, rows: Tensor) -> CodedEmbedding:
        """A table of some rows ``(n,)``, with the same centroids."""
        parts, _, width = self.centroids.shape
        result = CodedEmbedding(len(rows), parts, parts * width)
        result.codes.copy_(self.codes[rows])
        result.centroids.copy_(self.centroids)
        return result
