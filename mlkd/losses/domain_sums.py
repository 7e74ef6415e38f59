"""Errors and states added up over each domain of a batch; means of them, over ranks as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mlkd.losses.gather import gather_ranks
from mlkd.losses.vectors import PairVectors
from mlkd.machine import ranks

Sums = dict[str, tuple[Tensor, Tensor]]
"""By name: something added up over each of D domains ``(..., D)``, and how many there were of it
``(D,)``."""


def members(rows: Iterable[Tensor], domain: Tensor, sentences: int, domains: int) -> Tensor:
    """Which sentences are in a pair of which domain ``(U, D)``: 1 or 0.

    Args:
        rows: Sentence ``(B,)`` of each pair, a tensor a side.
        domain: Of each pair ``(B,)``.
        sentences: U.
        domains: D.
    """
    found = torch.zeros(sentences, domains, device=domain.device)
    for side in rows:
        found[side, domain] = 1.0
    return found


def hidden_sums(
    found: Sequence[Tensor], wanted: Sequence[Tensor], tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared errors of token states, the mean over dimensions ``(L, D)``, and tokens ``(D,)``.

    Args:
        found: States ``(T, d)`` of each of L layers.
        wanted: Their targets, alike.
        tokens: Which tokens are in which domain ``(T, D)``.
    """
    errors = [(f.float() - w.float()).square().mean(1) for f, w in zip(found, wanted, strict=True)]
    return torch.stack(errors) @ tokens, tokens.sum(0)


def attention_sums(
    found: Sequence[Tensor], wanted: Sequence[Tensor], mask: Tensor, sentences: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared errors of attention, the mean over heads ``(N, D)``, and entries ``(D,)``.

    Args:
        found: Probabilities ``(U, heads, S, S)`` of each of N layers, zero at padding.
        wanted: Their targets, alike.
        mask: 1 where a token is no padding ``(U, S)``.
        sentences: Which sentences are in which domain ``(U, D)``.
    """
    errors = [
        (f.float() - w.float()).square().sum((1, 2, 3)) / f.shape[1]
        for f, w in zip(found, wanted, strict=True)
    ]
    return torch.stack(errors) @ sentences, mask.sum(1).float().square() @ sentences


def pair_errors(vectors: PairVectors) -> Tensor:
    """Squared errors of both sides of B pairs, the mean over dimensions ``(B,)``."""
    source = (vectors.source - vectors.source_target).square().mean(1)
    translation = (vectors.translation - vectors.translation_target).square().mean(1)
    return source + translation


def prototype_sums(states: Sequence[Tensor], tokens: Tensor) -> tuple[Tensor, Tensor]:
    """States added up ``(L, d, D)``, and tokens ``(D,)``.

    Args:
        states: ``(T, d)`` of each of L layers.
        tokens: Which tokens are in which domain ``(T, D)``.
    """
    return torch.stack([state.float().T @ tokens for state in states]), tokens.sum(0)


def added(one: Sums, other: Sums) -> Sums:
    """Sums over two batches; an empty one is that of no batch."""
    if not one:
        return other
    return {name: (s + other[name][0], n + other[name][1]) for name, (s, n) in one.items()}


def means(sums: Sums) -> dict[str, Tensor]:
    """Means over each domain; 0 where a domain has nothing."""
    return {name: total / count.clamp_min(1.0) for name, (total, count) in sums.items()}


def joined_means(sums: Sums) -> dict[str, Tensor]:
    """A rank's part of the means over the joined batch: their mean over ranks is that.

    Gradients that are averaged over ranks are then those of one rank with the joined batch.
    """
    return means({name: (total, ranks.mean(count)) for name, (total, count) in sums.items()})


def joined_sums(sums: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Sums and counts of all ranks, the same on each, as :func:`gather_ranks` joins rows."""
    total, count = (gather_ranks(part.unsqueeze(0)).sum(0) for part in sums)
    return total, count
