"""How much the terms of each layer and domain count: a graph of domains beside the student."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOPE = 0.2
"""Of the leaky ReLU of graph attention."""
_GAIN = 1.414
"""Of the initial weights, as in the released code of Dong et al. (2021)."""


class DomainGraph(nn.Module):
    """Ratios of D domains in each of L states, from their prototypes (Dong et al., 2021).

    State 0 is the embedding output, state l the one after layer l. Above state 0 a prototype is
    first compared with those of the states below it: ``Q_l = softmax(F_l A_l F_lᵀ) F_l`` over the
    domains, ``w = softmax(p_{m,j}ᵀ B_{l,j} q_{l,j})`` over the states m up to l, and the mean with
    the weights w takes its place. In each state a graph attention network of two layers on the
    fully connected graph of domains makes one score of each, whose softmax is the ratio.

    Two things are not the paper's unless they are asked for. A and B are products of two matrices
    of a small rank: whole, they have more parameters than a student. And a node keeps itself beside
    what it attends to: on a fully connected graph the paper's network gives every domain the same
    score, and its own weights no gradient, where the sums inside the leaky ReLU have one sign.
    """

    def __init__(
        self,
        states: int,
        domains: int,
        width: int,
        *,
        aggregate: Literal["compare", "mean", "none"] = "compare",
        self_attention: bool = True,
        rank: int | None = 8,
        heads: int = 4,
        head_width: int = 32,
        residual: bool = True,
        dropout: float = 0.0,
    ) -> None:
        """Set up a graph with random weights.

        Args:
            states: L, at least 2.
            domains: D.
            width: Dimensions d of a prototype.
            aggregate: What takes a prototype's place: the weighted mean of those up to its state,
                their plain mean, or nothing.
            self_attention: false: Q_l is F_l.
            rank: Of A and B; None = whole matrices ``(d, d)``.
            heads: Of the first layer of graph attention.
            head_width: Dimensions of a head.
            residual: Whether graph attention adds a node's own projection; false = the paper's.
            dropout: On the inputs of both layers of graph attention, and on their attention.
        """
        super().__init__()
        self.aggregate, self.dropout = aggregate, dropout
        compares = aggregate == "compare"
        attends = compares and self_attention
        self.between = Bilinear((states - 1, 1), width, rank) if attends else None  # A
        self.below = Bilinear((states - 1, domains), width, rank) if compares else None  # B
        self.first = GraphAttention(states, heads, width, head_width, residual)
        self.second = GraphAttention(states, 1, heads * head_width, 1, residual)

    def forward(self, prototypes: Tensor, present: Tensor | None = None) -> Tensor:
        """Give the ratios ``(L, D)``; those of a state add up to 1.

        Args:
            prototypes: ``(L, D, d)``.
            present: Which domains there are ``(D,)``, bool, one at least; the others have a ratio
                of 0 and no influence. None = all.
        """
        if present is None:
            present = torch.ones(prototypes.shape[1], dtype=torch.bool, device=prototypes.device)
        nodes = self.aggregated(prototypes, present)
        nodes = F.elu(self.first(self._dropped(nodes), present, self._rate))
        scores = F.elu(self.second(self._dropped(nodes), present, self._rate)).squeeze(2)
        return scores.masked_fill(~present, -torch.inf).softmax(1)

    def aggregated(self, prototypes: Tensor, present: Tensor) -> Tensor:
        """Prototypes ``(L, D, d)`` as graph attention sees them."""
        if self.aggregate == "none":
            return prototypes
        return torch.einsum("lmj,mjd->ljd", self.weights(prototypes, present), prototypes)

    def weights(self, prototypes: Tensor, present: Tensor) -> Tensor:
        """How much a domain's prototype of state m counts in state l ``(L, L, D)``: 0 above l."""
        states, domains, _ = prototypes.shape
        scores = prototypes.new_zeros(states, states, domains)
        if self.below is not None:
            own = reference = prototypes[1:]  # (L - 1, D, d)
            if self.between is not None:
                shares = own @ self.between(own).transpose(1, 2)  # (L - 1, D, D)
                reference = shares.masked_fill(~present, -torch.inf).softmax(2) @ own
            above = torch.einsum("mjd,ljd->lmj", prototypes, self.below(reference))
            scores = torch.cat([scores[:1], above])
        higher = torch.ones(states, states, device=scores.device).triu(1).bool()
        return scores.masked_fill(higher[:, :, None], -torch.inf).softmax(1)

    @property
    def _rate(self) -> float:
        return self.dropout if self.training else 0.0

    def _dropped(self, nodes: Tensor) -> Tensor:
        return F.dropout(nodes, self._rate)


class Bilinear(nn.Module):
    """Square matrices ``(*places, d, d)``, whole or of a small rank."""

    def __init__(self, places: tuple[int, int], width: int, rank: int | None) -> None:
        super().__init__()
        inner = width if rank is None else rank
        self.left = _xavier(*places, width, inner)
        self.right = None if rank is None else _xavier(*places, inner, width)

    def forward(self, vectors: Tensor) -> Tensor:
        """Products with vectors ``(*places, d)``; a place of 1 serves all."""
        column = vectors.unsqueeze(3)
        if self.right is not None:
            column = self.right @ column
        return (self.left @ column).squeeze(3)


class GraphAttention(nn.Module):
    """A layer of graph attention (Veličković et al., 2018) for each state, all nodes joined.

    ``sum_k softmax_k(LeakyReLU(aᵀ [W x_j ‖ W x_k])) W x_k``, heads side by side; with a residual
    ``W x_j`` is added.
    """

    def __init__(
        self, states: int, heads: int, width: int, head_width: int, residual: bool
    ) -> None:
        super().__init__()
        self.residual = residual
        self.project = _xavier(states, heads, width, head_width)
        self.edge = _xavier(states, heads, 2 * head_width, 1)

    def forward(self, nodes: Tensor, present: Tensor, dropout: float) -> Tensor:
        """``(L, D, width)`` to ``(L, D, heads * head_width)``.

        Args:
            nodes: One of each domain.
            present: Nodes ``(D,)`` to which others attend.
            dropout: Share of the attention that is left out.
        """
        projected = nodes.unsqueeze(1) @ self.project  # (L, heads, D, head_width)
        from_here, from_there = self.edge.chunk(2, dim=2)
        edges = projected @ from_here + (projected @ from_there).transpose(2, 3)
        shares = F.leaky_relu(edges, _SLOPE).masked_fill(~present, -torch.inf).softmax(3)
        mixed = F.dropout(shares, dropout) @ projected
        if self.residual:
            mixed = mixed + projected
        return mixed.transpose(1, 2).flatten(2)


def _xavier(*shape: int) -> nn.Parameter:
    """Matrices ``(*places, rows, columns)``, uniform, each as if it stood alone."""
    bound = _GAIN * math.sqrt(6 / (shape[-2] + shape[-1]))
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
