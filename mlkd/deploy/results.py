"""What evaluations and exports give their callers; free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple


class Evaluated(NamedTuple):
    """A measured model."""

    name: str
    """Id of the run of a student, else the name of the folder."""
    scores: dict[str, Any]
    """See :func:`mlkd.metrics.scoring.score`."""
    content: dict[str, Any]
    """All numbers and what they are of (see :func:`mlkd.deploy.judge.judge`), JSON-able."""
    file: Path | None
    """Where the content is written; None if nothing was to be."""


class Exported(NamedTuple):
    """What an export wrote."""

    folders: dict[str, Path]
    """The folder of each format that passed its checks."""
    reports: dict[str, dict[str, dict[str, Any]]]
    """By format and file of weights what was measured, or ``refused`` and why."""
