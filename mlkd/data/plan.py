"""Which pairs each step trains on: a pure function of the seed and the step.

Because nothing is remembered between steps, training resumes exactly at any step, and every rank
of a distributed run computes the same plan and takes its own part.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_POOL = 64
"""Batches that are sorted by length together."""


def group_shares(sizes: np.ndarray, mixing: str, temperature: float) -> np.ndarray:
    """Share of each (corpus, language) group in training ``(groups,)``, summing to 1.

    Args:
        sizes: Pairs a group.
        mixing: ``proportional``, ``uniform`` (Ding et al., 2022: every file contributes equally,
            whatever its size) or ``temperature`` (size to the power of 1 / temperature).
        temperature: At least 1.
    """
    exponent = {"proportional": 1.0, "uniform": 0.0, "temperature": 1.0 / temperature}[mixing]
    weight = np.where(sizes > 0, sizes.astype(float) ** exponent, 0.0)
    shares: np.ndarray = weight / weight.sum()
    return shares


class BatchPlan:
    """Batches of pair indices; an epoch draws as many pairs as there are training pairs.

    Each group is walked through in random order again and again, so that no pair of a group comes
    up twice before all others have, also across epochs. Within an epoch pairs of similar length
    share a batch.
    """

    def __init__(
        self,
        pairs: np.ndarray,
        group: np.ndarray,
        length: np.ndarray,
        *,
        batch_size: int,
        mixing: str,
        temperature: float,
        seed: int,
    ) -> None:
        """Set up a plan.

        Args:
            pairs: Indices of the training pairs ``(n,)``.
            group: Group of each of them ``(n,)``.
            length: Tokens of each of them ``(n,)``; the longer side of a pair.
            batch_size: Pairs a step, over all ranks; at most n are used.
            mixing: See :func:`group_shares`.
            temperature: See :func:`group_shares`.
            seed: Decides every draw.
        """
        self.batch_size = min(batch_size, len(pairs))
        self.steps_per_epoch = len(pairs) // self.batch_size
        # Narrow integers: with 10 million pairs these arrays are what takes memory.
        self._pairs, self._length, self._seed = pairs.astype(np.uint32), length, seed
        groups = np.unique(group)
        self._members = [np.flatnonzero(group == g).astype(np.uint32) for g in groups]
        sizes = np.array([len(m) for m in self._members])
        self._quota = _round_to_sum(
            group_shares(sizes, mixing, temperature), self.steps_per_epoch * self.batch_size
        )
        self._epoch = lru_cache(maxsize=1)(self._make_epoch)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> np.ndarray:
        """Pair indices of one step; a rank of several gets every ``world``-th of them."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[position][rank::world]

    def pairs_until(self, steps: int) -> np.ndarray:
        """Distinct pairs that the first ``steps`` steps use: only they need targets."""
        full, rest = divmod(steps, self.steps_per_epoch)
        used = np.zeros(int(self._pairs.max()) + 1, bool)
        for epoch in range(full):
            used[self._make_epoch(epoch)] = True
        if rest:
            used[self._make_epoch(full)[:rest]] = True
        return np.flatnonzero(used)

    def _make_epoch(self, epoch: int) -> np.ndarray:
        """All batches of an epoch ``(steps_per_epoch, batch_size)``."""
        drawn = np.concatenate(
            [
                _walk(members, epoch * quota, quota, (self._seed, 1, number))
                for number, (members, quota) in enumerate(
                    zip(self._members, self._quota, strict=True)
                )
            ]
        )
        generator = np.random.default_rng((self._seed, 2, epoch))
        generator.shuffle(drawn)
        pool = _POOL * self.batch_size
        for start in range(0, len(drawn), pool):
            part = drawn[start : start + pool]
            drawn[start : start + pool] = part[np.argsort(self._length[part], kind="stable")]
        batches = drawn.reshape(self.steps_per_epoch, self.batch_size)
        batches = batches[generator.permutation(len(batches))]
        return self._pairs[batches]


def _walk(members: np.ndarray, start: int, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """``count`` members from position ``start`` of an endless row of random permutations."""
    parts = []
    while count > 0:
        lap, offset = divmod(start, len(members))
        order = np.random.default_rng((*seed, lap)).permutation(len(members))
        take = order[offset : offset + count]
        parts.append(members[take])
        start, count = start + len(take), count - len(take)
    return np.concatenate(parts) if parts else members[:0]


def _round_to_sum(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to ``shares`` that add up to ``total`` (largest remainder)."""
    exact = shares * total
    result = np.floor(exact).astype(int)
    remainder = np.argsort(result - exact, kind="stable")[: total - result.sum()]
    result[remainder] += 1
    return result
