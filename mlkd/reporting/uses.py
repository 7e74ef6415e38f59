"""What the vectors of a report's students are good for, from the files of ``mlkd.evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlkd.config.paths import OUTPUTS
from mlkd.metrics.table import Grid, kinds_grid, sides_grid
from mlkd.reporting.collect import ReportCell
from mlkd.reporting.compare import Group
from mlkd.runs.record import warn_once


@dataclass(frozen=True)
class Use:
    """A table of an evaluation.

    Attributes:
        title: What it is about, and of which student.
        words: How many columns are words, from the left; the others are numbers.
        grid: The cells, heads first.
    """

    title: str
    words: int
    grid: Grid


_KINDS: dict[str, tuple[str, int, Callable[[Mapping[str, Mapping[str, Any]]], Grid]]] = {
    "vectors": ("Shorter vectors", 2, kinds_grid),
    "documents": ("Queries and documents", 4, sides_grid),
}
"""What an evaluation may hold, with its title, columns of words and table."""


def uses_of(groups: Sequence[Group]) -> list[Use]:
    """Tables of the latest evaluation of each student, of each kind where there is one."""
    found = []
    for group in groups:
        for cell in group.cells:
            seed = f", seed {cell.config.get('seed')}" if len(group.cells) > 1 else ""
            contents = _evaluations(cell)
            for key, (title, words, grid) in _KINDS.items():
                latest = next((content[key] for content in contents if key in content), None)
                if latest is not None:
                    found.append(Use(f"{title}: {group.label}{seed}", words, grid(latest)))
    return found


def _evaluations(cell: ReportCell) -> list[dict[str, Any]]:
    """What ``mlkd.evaluate`` has written of a cell's student, the latest first."""
    if not cell.measured or not cell.links:
        return []
    run = cell.links[-1]
    own = cell.record.get("outputs", {}).get("student", {}).get("content")
    places = {place.resolve() for place in (run.parent.parent, Path(OUTPUTS))}
    found = []
    for file in (f for place in places for f in place.glob(f"evaluation-{run.name}-*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["model"]["fingerprint"] == own:
                found.append((str(content["finished"]), content))
        except (OSError, ValueError, LookupError, TypeError) as error:
            warn_once(f"{file}: not an evaluation of this version ({error!r})")
    return [content for _, content in sorted(found, key=lambda pair: pair[0], reverse=True)]
