"""Which pairs each step trains on: a pure function of the seed and the step.

Because nothing is remembered between steps, training resumes exactly at any step, and every rank
of a distributed run computes the same plan and takes its own part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from mlkd.output.errors import UserError

if TYPE_CHECKING:
    from mlkd.data.store import PairStore

_POOL = 64
"""Batches that are sorted by length together."""
_DRAWN = 1024
"""Members that a grouped plan draws with one generator, so that tiny groups take no longer."""


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


class BatchPlan(ABC):
    """Batches of pair indices; an epoch draws about as many pairs as there are training pairs.

    Each group is walked through in random order again and again, so that no pair of a group comes
    up twice before all others have, also across epochs. Within an epoch pairs of similar length
    share a batch.

    Attributes:
        batch_size: Pairs a step, over all ranks.
        steps_per_epoch: Batches an epoch.
        part: Pairs that belong together in a batch; a number of ranks that divides it shares every
            group of a batch evenly.
    """

    def __init__(
        self, pairs: np.ndarray, *, batch_size: int, steps_per_epoch: int, part: int, seed: int
    ) -> None:
        self.batch_size, self.steps_per_epoch, self.part = batch_size, steps_per_epoch, part
        # Narrow integers: with 10 million pairs these arrays are what takes memory.
        self._pairs, self._seed = pairs.astype(np.uint32), seed
        self._epoch = lru_cache(maxsize=1)(self._make_epoch)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> np.ndarray:
        """Pair indices of one step; a rank of several gets every ``world``-th of them."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._epoch(epoch)[position][rank::world]

    def pairs_until(self, steps: int) -> np.ndarray:
        """Distinct pairs that the first ``steps`` steps use: only they need targets."""
        full, rest = divmod(steps, self.steps_per_epoch)
        used = np.zeros(int(self._pairs.max()) + 1, bool)
        if rest:
            used[self._epoch(full)[:rest]] = True
        for epoch in reversed(range(full)):  # so that the first one is ready for the first step
            used[self._epoch(epoch)] = True
        return np.flatnonzero(used)

    @abstractmethod
    def _make_epoch(self, epoch: int) -> np.ndarray:
        """All batches of an epoch ``(steps_per_epoch, batch_size)``."""


class MixedPlan(BatchPlan):
    """Every batch is drawn from all (corpus, language) groups together."""

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
        size = min(batch_size, len(pairs))
        steps = len(pairs) // size
        super().__init__(pairs, batch_size=size, steps_per_epoch=steps, part=size, seed=seed)
        self._length = length
        groups = np.unique(group)
        self._members = [np.flatnonzero(group == g).astype(np.uint32) for g in groups]
        sizes = np.array([len(m) for m in self._members])
        shares = group_shares(sizes, mixing, temperature)
        self._quota = _round_to_sum(shares, steps * size)

    def _make_epoch(self, epoch: int) -> np.ndarray:
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
        _sort_pools(drawn, self._length, _POOL * self.batch_size)
        batches = drawn.reshape(self.steps_per_epoch, self.batch_size)
        batches = batches[generator.permutation(len(batches))]
        return self._pairs[batches]


class GroupedPlan(BatchPlan):
    """Batches by a label of the pairs, such as their language or domain; all groups count alike.

    ``one``: each batch is of one group (Ansell et al., 2023). Every round of as many steps as there
    are groups has one batch of each, in random order. ``all``: each batch has the same number of
    pairs of every group, group by group (Dong et al., 2021).

    An epoch has as many batches as all pairs fill: it does not reach the end of large groups, which
    the next one walks on, and begins small ones again.
    """

    def __init__(
        self,
        pairs: np.ndarray,
        label: np.ndarray,
        length: np.ndarray,
        *,
        names: Sequence[str],
        mode: Literal["one", "all"],
        batch_size: int,
        seed: int,
    ) -> None:
        """Set up a plan.

        Args:
            pairs: Indices of the training pairs ``(n,)``.
            label: Index into ``names`` of each of them ``(n,)``.
            length: Tokens of each of them ``(n,)``; the longer side of a pair.
            names: What the groups are called.
            mode: ``one`` or ``all``.
            batch_size: Pairs a step, over all ranks, of which :func:`group_part` are of a group.
            seed: Decides every draw.

        Raises:
            UserError: A group has no pair, or a batch no place for every group.
        """
        sizes = np.bincount(label, minlength=len(names))
        part, groups = group_part(sizes, names, mode, batch_size), len(names)
        self._members = [np.flatnonzero(label == g).astype(np.uint32) for g in range(groups)]
        self._rounds = max(1, len(pairs) // (part * groups))
        size, steps = part, self._rounds * groups
        if mode == "all":
            size, steps = part * groups, self._rounds
        super().__init__(pairs, batch_size=size, steps_per_epoch=steps, part=part, seed=seed)
        self._length, self._mode = length, mode

    def _make_epoch(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng((self._seed, 4, epoch))
        quota, parts = self._rounds * self.part, []
        for number, members in enumerate(self._members):
            seed, laps = (self._seed, 3, number), max(1, _DRAWN // len(members))
            drawn = _walk(members, epoch * quota, quota, seed, laps)
            # No wider than a lap: its pairs would stand beside themselves.
            pool = max(1, min(_POOL, len(members) // self.part)) * self.part
            _sort_pools(drawn, self._length, pool)
            chunks = drawn.reshape(self._rounds, self.part)
            if self._mode == "one":
                chunks = chunks[generator.permutation(self._rounds)]
            parts.append(chunks)
        batches = np.stack(parts, axis=1)  # (rounds, groups, part)
        if self._mode == "one":
            order = np.tile(np.arange(len(parts)), (self._rounds, 1))
            order = generator.permuted(order, axis=1)
            batches = np.take_along_axis(batches, order[:, :, None], axis=1)
        else:
            batches = batches[generator.permutation(self._rounds)]
        return self._pairs[batches.reshape(self.steps_per_epoch, self.batch_size)]


def group_part(
    sizes: np.ndarray, names: Sequence[str], mode: Literal["one", "all"], batch_size: int
) -> int:
    """Pairs that a batch of a :class:`GroupedPlan` has of one group, or of each.

    As many as give every group an equal part (``all``), and no more than the largest group has.

    Args:
        sizes: Pairs of each group ``(n,)``.
        names: What the groups are called.
        mode: ``one`` or ``all``.
        batch_size: Pairs a step, over all ranks.

    Raises:
        UserError: A group has no pair, or a batch no place for every group.
    """
    empty = [name for name, size in zip(names, sizes, strict=True) if not size]
    if empty:
        raise UserError(f"batches by group: no training pair is {', '.join(empty)}")
    if mode == "all" and batch_size < len(names):
        raise UserError(
            f"batches by group: a batch of {batch_size} pairs has no place for each of "
            f"{len(names)} groups; allowed: {len(names)} and more"
        )
    return min(batch_size if mode == "one" else batch_size // len(names), int(sizes.max()))


def labels(
    pairs: PairStore, which: np.ndarray, by: Literal["language", "domain"]
) -> tuple[np.ndarray, list[str]]:
    """Label of some pairs for a :class:`GroupedPlan`, and what the labels are called.

    Args:
        pairs: The pair store.
        which: Pair indices ``(n,)``.
        by: ``language``: that of the translation; ``domain``: that of the pair.

    Returns:
        Indices ``(n,)`` into the names.
    """
    if by == "domain":
        return np.asarray(pairs.domain[which]), pairs.domains
    names = list(dict.fromkeys(group.target_lang for group in pairs.groups))
    number = np.array([names.index(group.target_lang) for group in pairs.groups], np.uint16)
    return number[pairs.group[which]], names


def _walk(
    members: np.ndarray, start: int, count: int, seed: tuple[int, ...], laps: int = 1
) -> np.ndarray:
    """``count`` members from position ``start`` of an endless row of random permutations.

    ``laps`` of them are drawn by one generator.
    """
    parts = [members[:0]]
    while count > 0:
        block, offset = divmod(start, laps * len(members))
        order = np.tile(members, (laps, 1))
        order = np.random.default_rng((*seed, block)).permuted(order, axis=1).ravel()
        parts.append(order[offset : offset + count])
        start, count = start + len(parts[-1]), count - len(parts[-1])
    return np.concatenate(parts)


def _sort_pools(drawn: np.ndarray, length: np.ndarray, pool: int) -> None:
    """Sort every ``pool`` of drawn members by length, in place."""
    for start in range(0, len(drawn), pool):
        part = drawn[start : start + pool]
        drawn[start : start + pool] = part[np.argsort(length[part], kind="stable")]


def _round_to_sum(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to ``shares`` that add up to ``total`` (largest remainder)."""
    exact = shares * total
    result = np.floor(exact).astype(int)
    remainder = np.argsort(result - exact, kind="stable")[: total - result.sum()]
    result[remainder] += 1
    return result
