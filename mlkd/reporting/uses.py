"""What the vectors of a report's students are good for, from the files of ``mlkd.evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlkd.config.paths import OUTPUTS
from mlkd.metrics.table import Grid, kinds_grid, sides_grid
from mlkd.reporting.collect import ReportCell
from mlkd.reporting.compare import Group
from mlkd.runs.record import warn_once
from mlkd.storage.files import reason_of


@dataclass(frozen=True)
class Use:
    """A table of an evaluation.

    Attributes:
        title: What it is about, and of which student.
        note: When and on which sets it was scored.
        words: How many columns are words, from the left; the others are numbers.
        grid: The cells, heads first.
    """

    title: str
    note: str
    words: int
    grid: Grid


_KINDS: dict[str, tuple[str, int, Callable[[Mapping[str, Mapping[str, Any]]], Grid]]] = {
    "vectors": ("Shorter vectors", 2, kinds_grid),
    "documents": ("Queries and documents", 4, sides_grid),
}
"""What an evaluation may hold, with its title, columns of words and table."""


def uses_of(groups: Sequence[Group]) -> list[Use]:
    """Tables of each student, of either kind that of the latest evaluation which has one."""
    found = []
    for group in groups:
        for cell in group.cells:
            seed = f", seed {cell.config.get('seed')}" if len(group.cells) > 1 else ""
            latest: dict[str, Use] = {}
            for _, uses in sorted(_evaluations(cell), key=lambda pair: pair[0]):
                latest |= uses
            found += [
                replace(latest[key], title=f"{title}: {group.label}{seed}")
                for key, (title, _, _) in _KINDS.items()
                if key in latest
            ]
    return found


def _evaluations(cell: ReportCell) -> list[tuple[str, dict[str, Use]]]:
    """Day and tables of what ``mlkd.evaluate`` has written of a cell's student."""
    found: list[tuple[str, dict[str, Use]]] = []
    if not cell.measured or not cell.links:
        return found
    run = cell.links[-1]
    places = {place.resolve() for place in (run.parent.parent, Path(OUTPUTS))}
    for file in (f for place in places for f in place.glob(f"evaluation-{run.name}-*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["model"]["fingerprint"] == cell.record["outputs"]["student"]["content"]:
                found.append((content["finished"], _tables(content, cell)))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
            warn_once(f"{file}: not shown, no evaluation of this version ({reason_of(e)})")
    return found


def _tables(content: dict[str, Any], cell: ReportCell) -> dict[str, Use]:
    """Tables by what an evaluation holds, still without a title."""
    sets = content["scores"]["sets"]
    scored = {
        (name, entry["split"], pair, entry["content"][pair])
        for name, entry in sets.items()
        for pair in entry["pairs"]
    }
    same = scored == {entry[:4] for entry in cell.evaluation}
    note = f"Of {content['finished'][:10]}, on {'the' if same else 'other'} sets"
    note += f" {'of' if same else 'than those of'} the scores above: {', '.join(sets)}."
    if names := content["not_kept_out"]:
        note += f" Not kept out of the training pairs: {', '.join(names)}."
    return {
        key: Use("", note, words, grid(content[key]))
        for key, (_, words, grid) in _KINDS.items()
        if key in content
    }
