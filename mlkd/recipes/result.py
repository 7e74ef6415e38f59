"""What a training gives its caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # loading a student needs fewer packages than training one
    from mlkd.metrics.table import TableRow

Show = Callable[[Sequence["TableRow"]], None]
"""Told the lines of the table of results."""


class Result(NamedTuple):
    """A trained student."""

    student: Path
    """A folder for :func:`mlkd.load`."""
    scores: dict[str, Any]
    """Of the student (see :func:`mlkd.metrics.scoring.score`)."""
    score: float
    """The dev score that selects, ×100, of the student."""
    runs: tuple[Path, ...]
    """The folders of the links, the last one's last; those of the largest student come first."""
