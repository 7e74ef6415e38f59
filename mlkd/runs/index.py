"""What the finished runs of an output folder are known to be the result of."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlkd.output.errors import UserError
from mlkd.runs.record import read_record


@dataclass(frozen=True)
class Finished:
    """A finished run."""

    id: str
    link: str
    """Its name in the recipe."""
    seconds: float
    """Wall time of its training."""
    steps: int
    """Of its training."""
    score: float | None
    """Its selecting dev score."""
    mib: float | None
    """Size of its student on disk."""
    budget: dict[str, Any]
    """Settings that decided its link."""
    depth: int
    """Layers that a sentence passes in its student."""
    is_reported: bool
    """Whether it ended a chain, so that it has its speed and its references."""


def finished_runs(output_dir: Path) -> dict[str, Finished]:
    """Finished runs by what leads to them (see :func:`mlkd.recipes.identity.link_keys`).

    A damaged or odd run is none of them: the chain that needs it says so. Of several runs, as after
    a change of mlkd itself, it is the latest.
    """
    known: list[tuple[str, list[str], Finished]] = []
    for path in (output_dir / "runs").glob("*/run.json"):
        with suppress(UserError, LookupError, TypeError, AttributeError):
            record = read_record(path.parent)
            if record.get("status") == "finished" and "link" in record["identity"]:
                known.append((record["finished"], record.get("settings", []), _finished(record)))
    found: dict[str, Finished] = {}
    for _, keys, run in sorted(known, key=lambda entry: str(entry[0])):
        found |= dict.fromkeys(keys, run)
    return found


def _finished(record: dict[str, Any]) -> Finished:
    student = record["config"]["student"]
    return Finished(
        id=record["id"],
        link=record["link"],
        seconds=record["training"]["seconds"],
        steps=record["training"]["steps"],
        score=record.get("selected"),
        mib=record.get("metrics", {}).get("mib"),
        budget=record["identity"]["link"],
        depth=student["layers"] * student["recurrence"],
        is_reported="references" in record,
    )
