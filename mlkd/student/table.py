"""Training of the word table's rows that occur, instead of the whole table.

A row whose token occurs in no sentence gets no gradient and no moments; all that AdamW does to it
is weight decay, the same factor for every such row. So these rows are taken out of the training
and multiplied with that factor at the end. Nothing differs from training the whole table but
the order in which numbers are added up; gradient, moments, update and gradient norm of 250,000 rows
of which 15,000 occur are never computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.encoders.backbone import Backbone
from mlkd.encoders.coded import CodedEmbedding
from mlkd.encoders.words import set_word_table, word_table


class OccurringRows(nn.Module):
    """Some rows of a word table, looked up with the token ids of the whole one."""

    position: Tensor

    def __init__(self, table: nn.Embedding, occurs: Tensor) -> None:
        """Copy the rows.

        Args:
            table: The whole table ``(vocabulary, width)``.
            occurs: Which rows are wanted ``(vocabulary,)``, bool; the padding row always is.
        """
        super().__init__()
        rows = occurs.clone()
        if table.padding_idx is not None:
            rows[table.padding_idx] = True
        position = torch.full((len(rows),), -1)  # an index that the look-up refuses
        position[rows] = torch.arange(int(rows.sum()))
        self.register_buffer("position", position, persistent=False)
        self.weight = nn.Parameter(table.weight.detach()[rows])
        self.padding_idx = None if table.padding_idx is None else int(position[table.padding_idx])

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids ``(batch, length)`` to vectors ``(batch, length, width)``."""
        return F.embedding(self.position[ids], self.weight, self.padding_idx)


@dataclass
class WholeTable:
    """The word table of a model in whose place :class:`OccurringRows` are trained."""

    backbone: Backbone
    table: nn.Embedding
    rows: OccurringRows
    decay: float = 1.0
    """What weight decay has made of an entry of the other rows, as a factor."""

    @classmethod
    def take_out(cls, backbone: Backbone, occurs: Tensor) -> WholeTable | None:
        """Put the rows that occur in the table's place; see :class:`OccurringRows`.

        None for a coded table: it has no rows to train.
        """
        if isinstance(backbone.get_input_embeddings(), CodedEmbedding):
            return None
        table = word_table(backbone)
        whole = cls(backbone, table, OccurringRows(table, occurs))
        set_word_table(backbone, whole.rows)
        return whole

    @torch.no_grad()
    def put_back(self) -> None:
        """Put the table back, its trained rows updated and the others decayed."""
        trained = self.rows.position >= 0
        self.table.weight.mul_(self.decay)
        self.table.weight[trained] = self.rows.weight
        set_word_table(self.backbone, self.table)
