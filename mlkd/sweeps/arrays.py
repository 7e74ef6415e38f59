"""How jobs are spread over job arrays, whose size a cluster limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class JobArray:
    """A part of some jobs that is submitted as one array."""

    start: int
    """Its first job, counted over all of them,"""
    stop: int
    """and the one after its last."""
    parallel: int
    """How many of it may run at a time."""
    after: int | None
    """The array, by its place in the list, that has to have ended before; None = none."""


def make_arrays(jobs: int, limit: int, parallel: int) -> list[JobArray]:
    """Spread jobs evenly over as few arrays as possible.

    All arrays together run at most ``parallel`` jobs at a time. They share these out among
    themselves; where there are more arrays than that, some start only after others.

    Args:
        jobs: How many jobs.
        limit: The most jobs of an array.
        parallel: The most jobs that run at a time.
    """
    number = -(-jobs // limit)
    side = min(number, parallel)  # arrays beside each other
    edges = [index * jobs // number for index in range(number + 1)] if number else [0]
    arrays = []
    for index in range(number):
        lane = index % side
        share = parallel // side + (lane < parallel % side)
        after = index - side if index >= side else None
        arrays.append(JobArray(edges[index], edges[index + 1], share, after))
    return arrays
