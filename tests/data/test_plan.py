"""What each step, each epoch and all epochs draw."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.data.pairs import prepare_pairs
from mlkd.data.plan import BatchPlan, GroupedPlan, MixedPlan, _walk, group_shares, labels
from mlkd.data.tokens import pad
from mlkd.output.errors import UserError

FIRST = 1000
"""The smallest pair index."""
SIZES = (300, 47, 21)
"""Pairs of each group of the grouped plans."""


def lengths(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(3, 100, n).astype(np.uint16)


def mixed(
    mixing: str = "proportional",
    n: int = 100,
    small: int = 20,
    batch_size: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
) -> MixedPlan:
    """The first ``small`` pairs are one group, the rest another."""
    return MixedPlan(
        np.arange(n) + FIRST,
        (np.arange(n) < small).astype(int),
        lengths(n),
        batch_size=batch_size,
        mixing=mixing,
        temperature=temperature,
        seed=seed,
    )


def grouped(
    mode: Literal["one", "all"] = "one",
    sizes: tuple[int, ...] = SIZES,
    batch_size: int = 8,
    seed: int = 0,
) -> GroupedPlan:
    label, n = label_of(sizes), sum(sizes)
    return GroupedPlan(
        np.arange(n) + FIRST,
        label,
        lengths(n),
        names=[f"group {i}" for i in range(len(sizes))],
        mode=mode,
        batch_size=batch_size,
        seed=seed,
    )


def label_of(sizes: tuple[int, ...]) -> np.ndarray:
    """Group of each pair; those of a group do not stand together."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(2).permutation(label)


def epoch(plan: BatchPlan, number: int) -> np.ndarray:
    first = number * plan.steps_per_epoch
    return np.stack([plan.batch(first + s) for s in range(plan.steps_per_epoch)])


def times(plan: BatchPlan, epochs: int, n: int) -> np.ndarray:
    """How often each pair is drawn in some epochs ``(n,)``."""
    drawn = np.concatenate([epoch(plan, e).ravel() for e in range(epochs)])
    return np.bincount(drawn - FIRST, minlength=n)


PLANS = {
    "mixed": lambda seed: mixed("uniform", seed=seed),
    "one": lambda seed: grouped("one", seed=seed),
    "all": lambda seed: grouped("all", seed=seed),
}
EVERY = pytest.mark.parametrize("kind", PLANS)
MODES = pytest.mark.parametrize("mode", ["one", "all"])


def test_shares() -> None:
    sizes = np.array([100, 400])
    assert group_shares(sizes, "proportional", 1.0).tolist() == [0.2, 0.8]
    assert group_shares(sizes, "uniform", 1.0).tolist() == [0.5, 0.5]
    assert group_shares(sizes, "temperature", 2.0) == pytest.approx([1 / 3, 2 / 3])
    sizes = np.array([0, 1, 3])
    assert group_shares(sizes, "uniform", 1.0).tolist() == [0.0, 0.5, 0.5]
    assert group_shares(sizes, "proportional", 1.0).tolist() == [0.0, 0.25, 0.75]


@pytest.mark.parametrize(
    ("mixing", "temperature", "seed", "n", "batch_size", "order"),
    [
        ("proportional", 1.0, 0, 1000, 8, "1672ac7999cbb341"),
        ("uniform", 1.0, 1, 777, 16, "b27053f496daebdf"),
        ("temperature", 3.0, 2, 20000, 32, "2cac4a5ab3e83f2d"),
    ],
)
def test_the_order_of_the_mixed_plan_is_recorded(
    mixing: str, temperature: float, seed: int, n: int, batch_size: int, order: str
) -> None:
    """Another order makes other students of the same command."""
    draw = np.random.default_rng(7)
    plan = MixedPlan(
        np.arange(n) + FIRST,
        draw.integers(0, 5, n) ** 2,
        draw.integers(3, 90, n).astype(np.uint16),
        batch_size=batch_size,
        mixing=mixing,
        temperature=temperature,
        seed=seed,
    )
    assert order_of(plan) == order


def order_of(plan: BatchPlan) -> str:
    """Hash of three epochs."""
    steps = np.concatenate([epoch(plan, e) for e in range(3)])
    return hashlib.sha256(steps.astype("<i8").tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("mode", "order"), [("one", "4d4c4dd2ba289f96"), ("all", "12950d4e173ae791")]
)
def test_the_order_of_grouped_plans_is_recorded(mode: Literal["one", "all"], order: str) -> None:
    assert order_of(grouped(mode, (6000, 205, 1), batch_size=9)) == order


@pytest.mark.parametrize(
    ("mixing", "temperature", "small"),
    [("proportional", 1.0, 200), ("uniform", 1.0, 500), ("temperature", 2.0, 333)],
)
def test_an_epoch_draws_each_group_as_often_as_the_mixing_says(
    mixing: str, temperature: float, small: int
) -> None:
    plan = mixed(mixing, n=1000, small=200, temperature=temperature)
    assert (plan.batch_size, plan.steps_per_epoch, plan.part) == (8, 125, 8)
    for number in range(3):
        assert (epoch(plan, number) < FIRST + 200).sum() == small


@pytest.mark.parametrize(("mixing", "n"), [("uniform", 1000), ("proportional", 1003)])
def test_no_pair_of_a_group_comes_twice_before_all_others_have(mixing: str, n: int) -> None:
    plan = mixed(mixing, n=n, small=100)
    for epochs in (1, 2, 3, 5):
        drawn = times(plan, epochs, n)
        assert drawn.sum() == epochs * 1000
        for part in (drawn[:100], drawn[100:]):
            assert part.max() - part.min() <= 1
    if mixing == "uniform":  # 500 of the 900 in each epoch: all of them after two
        assert times(plan, 1, n)[100:].sum() == 500
        assert times(plan, 2, n)[100:].min() == 1
    first, second = set(epoch(plan, 0).ravel()), set(epoch(plan, 1).ravel())
    assert len(second - first) == (400 if mixing == "uniform" else 3)


def test_fewer_pairs_than_a_batch_are_one_batch() -> None:
    plan = mixed(n=5, small=2, batch_size=8)
    assert (plan.batch_size, plan.steps_per_epoch) == (5, 1)
    assert sorted(plan.batch(3)) == [*range(FIRST, FIRST + 5)]


@EVERY
def test_batches_are_a_function_of_seed_and_step(kind: str) -> None:
    one, two, other = PLANS[kind](0), PLANS[kind](0), PLANS[kind](1)
    steps = [0, 5, 13, 29, 2 * one.steps_per_epoch + 1]
    two.batch(100)  # what was asked before does not matter
    assert all((one.batch(s) == two.batch(s)).all() for s in reversed(steps))
    assert any((one.batch(s) != other.batch(s)).any() for s in steps)


@EVERY
def test_epochs_have_other_batches(kind: str) -> None:
    plan = PLANS[kind](0)
    found = {tuple(sorted(row)) for e in range(2) for row in epoch(plan, e)}
    assert len(found) > 1.9 * plan.steps_per_epoch


@EVERY
def test_pairs_until_names_exactly_what_is_used(kind: str) -> None:
    plan = PLANS[kind](0)
    whole = plan.steps_per_epoch
    for steps in (1, whole - 1, whole, whole + 5, 3 * whole):
        used = np.unique(np.concatenate([plan.batch(s) for s in range(steps)]))
        assert plan.pairs_until(steps).tolist() == used.tolist()


@pytest.mark.parametrize("kind", ["mixed", "one"])
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_batch(kind: str, world: int) -> None:
    plan = PLANS[kind](0)
    for step in range(10):
        parts = np.stack([plan.batch(step, rank, world) for rank in range(world)])
        assert parts.shape == (world, plan.part // world)
        assert sorted(parts.ravel()) == sorted(plan.batch(step))


@EVERY
def test_batches_are_of_similar_length_and_in_no_order_of_it(kind: str) -> None:
    n = 6400
    length = lengths(n)
    if kind == "mixed":
        plan: BatchPlan = mixed("proportional", n=n, small=640)
    else:
        plan = grouped("one" if kind == "one" else "all", (3200, 2560, 640), 9)
    batches = epoch(plan, 0)
    assert np.ptp(length[batches - FIRST], axis=1).mean() < 12  # 78 if they were drawn at random
    mean = length[batches - FIRST].mean(1)
    place = np.arange(len(mean))
    assert abs(np.corrcoef(place, mean)[0, 1]) < 0.15
    for step in range(2, 10):  # nor does one that is as long follow at once, or later
        assert abs(np.corrcoef(mean[:-step], mean[step:])[0, 1]) < 0.2
    assert abs(np.corrcoef(mean[:-1], mean[1:])[0, 1]) < 0.2


def test_each_batch_is_of_one_group_and_each_round_has_all() -> None:
    plan, label = grouped("one"), label_of(SIZES)
    assert (plan.batch_size, plan.part, plan.steps_per_epoch) == (8, 8, 45)  # 368 pairs: 15 rounds
    orders = set()
    for number in range(3):
        batches = label[epoch(plan, number) - FIRST]
        assert (batches == batches[:, :1]).all()
        rounds = batches[:, 0].reshape(15, 3)
        assert (np.sort(rounds, axis=1) == [0, 1, 2]).all()
        orders |= {tuple(row) for row in rounds}
    assert len(orders) == 6


def test_each_batch_has_the_same_part_of_every_group() -> None:
    plan, label = grouped("all", batch_size=11), label_of(SIZES)
    assert (plan.batch_size, plan.part, plan.steps_per_epoch) == (9, 3, 40)  # 368 pairs
    for number in range(3):
        batches = label[epoch(plan, number) - FIRST]
        assert (batches == [0, 0, 0, 1, 1, 1, 2, 2, 2]).all()


@MODES
def test_groups_are_walked_on_from_epoch_to_epoch(mode: Literal["one", "all"]) -> None:
    """Each epoch draws 120 pairs a group: large ones go on, small ones begin again."""
    plan, label = grouped(mode, batch_size=8 if mode == "one" else 9), label_of(SIZES)
    for epochs in (1, 2, 3, 7):
        drawn = times(plan, epochs, sum(SIZES))
        for group, size in enumerate(SIZES):
            mine = drawn[label == group]
            assert mine.sum() == 120 * epochs
            assert mine.max() - mine.min() <= 1
            assert mine.min() == 120 * epochs // size
    first, second = (set(epoch(plan, e).ravel()) for e in range(2))
    large = set(np.flatnonzero(label == 0) + FIRST)
    assert len(first & large) == len(second & large) == 120
    assert not first & second & large


@MODES
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_split_each_group_alike(mode: Literal["one", "all"], world: int) -> None:
    plan, label = grouped(mode, batch_size=8 if mode == "one" else 12), label_of(SIZES)
    assert plan.part % world == 0
    for step in range(20):
        parts = np.stack([plan.batch(step, rank, world) for rank in range(world)])
        assert sorted(parts.ravel()) == sorted(plan.batch(step))
        counts = [np.bincount(label[part - FIRST], minlength=3).tolist() for part in parts]
        assert counts == [counts[0]] * world


@MODES
def test_a_group_of_one_pair_is_in_every_round(mode: Literal["one", "all"]) -> None:
    sizes = (40, 1)
    plan, label = grouped(mode, sizes, batch_size=4), label_of(sizes)
    (single,) = np.flatnonzero(label == 1) + FIRST
    batches = epoch(plan, 2)
    alone = (batches == single).sum(1).reshape(-1, 2 if mode == "one" else 1)
    assert (alone.sum(1) == plan.part).all()
    assert len(batches) == 10


@MODES
def test_a_pair_comes_twice_in_a_batch_only_at_the_end_of_a_lap(
    mode: Literal["one", "all"],
) -> None:
    sizes = (64, 17, 9)  # none smaller than its part of a batch
    plan = grouped(mode, sizes, batch_size=8 if mode == "one" else 24)
    for number in range(20):
        for row in epoch(plan, number):
            assert np.unique(row, return_counts=True)[1].max() <= 2


@MODES
def test_a_hundred_groups(mode: Literal["one", "all"]) -> None:
    sizes = tuple(1 + i % 4 for i in range(100))
    plan, label = grouped(mode, sizes, batch_size=4 if mode == "one" else 250), label_of(sizes)
    assert plan.part == (4 if mode == "one" else 2)
    assert plan.steps_per_epoch == (100 if mode == "one" else 1)
    for number in range(2):
        drawn = np.bincount(label[epoch(plan, number).ravel() - FIRST], minlength=100)
        assert (drawn == plan.part).all()
    counts = times(plan, 24 // plan.part, sum(sizes))  # each size divides the draws of a group
    assert counts.tolist() == [24 // sizes[group] for group in label]


@MODES
def test_more_pairs_a_batch_than_there_are(mode: Literal["one", "all"]) -> None:
    plan = grouped(mode, (5, 3), batch_size=64)
    assert plan.part == 5
    assert plan.steps_per_epoch == (2 if mode == "one" else 1)
    assert plan.batch(1).shape == (plan.batch_size,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sizes": (4, 0, 3, 0)}, "no training pair is group 1, group 3"),
        (
            {"mode": "all", "sizes": (4,) * 9, "batch_size": 8},
            "a batch of 8 pairs has no place for each of 9 groups; allowed: 9 and more",
        ),
    ],
)
def test_what_cannot_be_grouped_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        grouped(**settings)
    assert str(error.value) == f"batches by group: {words}"
    assert grouped("all", (4,) * 9, batch_size=9).part == 1


def test_labels_are_languages_or_domains(tmp_path: Path) -> None:
    rows = {"news.en-de": "wort", "news.en-fr": "mot", "talks.en-fr": "parole"}
    for name, word in rows.items():
        text = "".join(f"{name} word {i}\t{word} {i}\n" for i in range(50))
        (tmp_path / f"{name}.tsv").write_text(text, encoding="utf-8")
    corpora = {
        name: CorpusConfig(
            format="tsv", path=f"{name}.en-{{target}}.tsv", targets=targets, domain=name
        )
        for name, targets in (("talks", ["fr"]), ("news", ["de", "fr"]))
    }
    store = prepare_pairs(DataConfig(root=str(tmp_path), corpora=corpora), [], tmp_path / "cache")
    which = store.train_pairs()[::-1]
    texts = store.texts(store.translation[which].astype(int))
    language = {"wort": "de", "mot": "fr", "parole": "fr"}
    label, names = labels(store, which, "language")
    assert sorted(names) == ["de", "fr"]
    assert [names[i] for i in label] == [language[text.split()[0]] for text in texts]
    label, names = labels(store, which, "domain")
    assert [names[i] for i in label] == [
        "talks" if text.startswith("parole") else "news" for text in texts
    ]


def test_pad() -> None:
    flat, starts, ends = np.array([5, 6, 7, 8]), np.array([0, 3]), np.array([3, 4])
    ids, mask = pad(flat, starts, ends, 0)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_what_the_first_step_needs_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    for plan in (mixed(), grouped("one"), grouped("all")):
        make = plan._make_epoch
        monkeypatch.setattr(
            plan, "_epoch", lru_cache(maxsize=1)(lambda e, make=make: (made.append(e), make(e))[1])
        )
        made.clear()
        steps = 2 * plan.steps_per_epoch + 1
        used = plan.pairs_until(steps)
        drawn = [plan.batch(step) for step in range(steps)]
        assert used.tolist() == np.unique(np.concatenate(drawn)).tolist()
        assert made == [2, 1, 0, 1, 2]


@pytest.mark.parametrize("laps", [1, 3])
def test_a_walk_is_the_same_in_steps_of_any_size(laps: int) -> None:
    members = np.array([7, 3, 5, 11])
    whole = _walk(members, 0, 30, (1, 2), laps)
    assert len(whole) == 30
    for lap in range(7):
        assert sorted(whole[4 * lap : 4 * lap + 4]) == [3, 5, 7, 11]
    for size in (1, 2, 5):
        steps = [_walk(members, at, size, (1, 2), laps) for at in range(0, 30, size)]
        assert np.concatenate(steps).tolist() == whole.tolist()
