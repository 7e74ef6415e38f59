"""The jobs of a sweep: what several cells share comes first, then the cells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlkd.config.schema import TrainConfig
from mlkd.output.label import label
from mlkd.sweeps.grid import Cell


@dataclass(frozen=True)
class Job:
    """A cell, or what several cells share."""

    id: str
    """Names the job's files; the same settings have the same id."""
    config: TrainConfig
    key: str
    """Of its last link, see :func:`mlkd.recipes.identity.link_keys`."""
    upto: str | None
    """Its last link; None = data and targets only."""
    parent: str | None
    """Id of the job that has to be finished before."""
    is_cell: bool
    overrides: dict[str, str] = field(default_factory=dict)
    cells: int = 1
    """How many cells need it."""

    @property
    def label(self) -> str:
        """The job in a line."""
        if self.is_cell:
            return label(self.overrides) or "(no override)"
        return f"{self.upto or 'data and targets'}, shared by {self.cells} cells"

    @property
    def name(self) -> str:
        """A file name that says what it is."""
        short = ",".join(f"{key.split('.')[-1]}={value}" for key, value in self.overrides.items())
        return re.sub(r"[^\w.=,+-]", "_", short)[:200] or self.id


def make_jobs(cells: Sequence[Cell]) -> list[Job]:
    """Jobs of a sweep, each after the one that it waits for.

    A link that at least two cells have in common is a shared job, unless exactly the same cells
    have the next link in common too: then that one does both.
    """
    users: dict[str, list[Cell]] = {}
    for cell in cells:
        for _, key in cell.links:
            users.setdefault(key, []).append(cell)
    shared: dict[str, Job] = {}
    jobs = []
    for cell in cells:
        parent = None
        for (name, key), following in zip(cell.links, [*cell.links[1:], None], strict=True):
            goes_on = following is not None and len(users[following[1]]) == len(users[key])
            if len(users[key]) < 2 or goes_on:
                continue
            if key not in shared:
                identity = f"shared-{key[:8]}"
                shared[key] = Job(
                    identity, cell.config, key, name, parent, False, cells=len(users[key])
                )
            parent = shared[key].id
        name, key = cell.links[-1]
        jobs.append(Job(cell.id, cell.config, key, name, parent, True, cell.overrides))
    order = sorted(shared.values(), key=lambda job: _depth(job, shared))
    return [*order, *jobs]


def _depth(job: Job, shared: dict[str, Job]) -> int:
    """How many jobs have to be finished before a shared one."""
    by_id = {other.id: other for other in shared.values()}
    return 0 if job.parent is None else 1 + _depth(by_id[job.parent], shared)
