from __future__ import annotations

import numpy as np
import pytest

from mlkd.data.plan import BatchPlan, group_shares
from mlkd.data.tokens import pad


def plan(mixing: str = "proportional", seed: int = 0, n: int = 100) -> BatchPlan:
    group = (np.arange(n) < 20).astype(int)
    length = np.random.default_rng(1).integers(3, 30, n)
    return BatchPlan(
        np.arange(n) + 1000, group, length,
        batch_size=8, mixing=mixing, temperature=1.0, seed=seed,
    )  # fmt: skip


def test_shares() -> None:
    sizes = np.array([100, 400])
    assert group_shares(sizes, "proportional", 1.0).tolist() == [0.2, 0.8]
    assert group_shares(sizes, "uniform", 1.0).tolist() == [0.5, 0.5]
    assert group_shares(sizes, "temperature", 2.0) == pytest.approx([1 / 3, 2 / 3])


def test_uniform_mixing_draws_groups_equally_and_evenly_within() -> None:
    uniform = plan("uniform")
    drawn = np.concatenate([uniform.batch(s) for s in range(uniform.steps_per_epoch)])
    small = drawn[drawn < 1020]
    assert len(small) == len(drawn) / 2
    counts = np.unique(small, return_counts=True)[1]
    assert counts.max() - counts.min() <= 1


def test_batches_are_a_function_of_seed_and_step() -> None:
    one, two = plan(), plan()
    two.batch(40)  # what was asked before does not matter
    assert all((one.batch(s) == two.batch(s)).all() for s in (0, 5, 13, 29))
    assert any((one.batch(s) != plan(seed=1).batch(s)).any() for s in range(5))


def test_ranks_share_the_batch() -> None:
    whole = plan().batch(3)
    parts = [plan().batch(3, rank, 2) for rank in (0, 1)]
    assert sorted(np.concatenate(parts)) == sorted(whole)
    assert not set(parts[0]) & set(parts[1])


def test_pairs_until_names_exactly_what_is_used() -> None:
    p = plan()
    used = np.unique(np.concatenate([p.batch(s) for s in range(17)]))
    assert (p.pairs_until(17) == used).all()


def test_batches_group_by_length() -> None:
    n = 640
    length = np.random.default_rng(1).integers(3, 100, n)
    grouped = BatchPlan(
        np.arange(n), np.zeros(n, int), length,
        batch_size=8, mixing="uniform", temperature=1.0, seed=0,
    )  # fmt: skip
    spread = [np.ptp(length[grouped.batch(s)]) for s in range(grouped.steps_per_epoch)]
    assert np.mean(spread) < 10


def test_pad() -> None:
    flat, starts, ends = np.array([5, 6, 7, 8]), np.array([0, 3]), np.array([3, 4])
    ids, mask = pad(flat, starts, ends, 0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
