"""Which entries moved furthest."""

from __future__ import annotations

import pytest
import torch

from mlkd.output.errors import UserError
from mlkd.student.furthest import furthest


def test_the_example_of_the_method() -> None:
    start = {"a": torch.zeros(4)}
    (mask,) = furthest(start, {"a": torch.tensor([0.1, -0.5, 0.2, 0.0])}, 2)
    assert mask.tolist() == [False, True, True, False]


@pytest.mark.parametrize("levels", [None, 3, 40, "close"])
def test_exactly_k_of_one_pool_and_the_first_of_equals(levels: int | str | None) -> None:
    """As a stable sort of all entries in float64 says; with few levels nearly all are ties.

    Close ones differ in their lower halves alone, within two upper halves.
    """
    generator = torch.Generator().manual_seed(levels if isinstance(levels, int) else 0)
    shapes = {"table": (17, 5), "bias": (7,), "one": (1,), "matrix": (6, 9)}
    moved, start = {}, {}
    for name, shape in shapes.items():
        start[name] = torch.randn(shape, generator=generator) * 10.0 ** (9 - len(name))
        step = torch.randn(shape, generator=generator) * 10.0 ** len(name)
        if levels == "close":
            start[name] = torch.zeros(shape)
            low = torch.randint(0, 20, shape, generator=generator) / 2**20
            step = step.sign() * (low + (2 if name == "table" else 1))
        elif isinstance(levels, int):
            start[name] = torch.zeros(shape)
            step = (step.sign() * torch.randint(0, levels, shape, generator=generator)) * 1e-3
        moved[name] = start[name] + step
    far = torch.cat([(moved[name] - start[name]).abs().view(-1) for name in shapes]).double()
    order = far.argsort(descending=True, stable=True)
    total = len(far)
    for count in (1, 2, total // 3, total // 2, 3 * total // 4, total - 1, total):
        masks = furthest(start, moved, count)
        assert [tuple(mask.shape) for mask in masks] == list(shapes.values())
        found = torch.cat([mask.view(-1) for mask in masks])
        assert int(found.sum()) == count
        assert sorted(found.nonzero()[:, 0].tolist()) == sorted(order[:count].tolist())
    assert all(mask.all() for mask in furthest(start, moved, total + 5))


def test_weights_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="a: an entry is not finite"):
        furthest({"a": torch.zeros(3)}, {"a": torch.tensor([0.0, torch.nan, 1.0])}, 1)
