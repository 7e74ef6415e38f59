"""Where the jobs of a sweep stand, seen from any terminal; starts without torch and Hydra."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlkd.output.errors import UserError
from mlkd.output.label import label
from mlkd.storage.process import machine, started
from mlkd.sweeps.queue import Place, meaning_of, queued_jobs
from mlkd.sweeps.record import SweepRecord

WORDS = ("finished", "running", "queued", "failed", "missing", "unknown")
"""All that a job may be. Missing: nobody works on it, and it waits nowhere. Unknown: it was given
to SLURM, which does not answer."""


@dataclass(frozen=True)
class Standing:
    """Where a job stands."""

    id: str
    overrides: str
    """What sets a cell apart; of a shared job how it is shared."""
    is_cell: bool
    word: str
    """One of :data:`WORDS`."""
    detail: str
    """Its score, who works on it, why it waits, or what went wrong."""


def this_process() -> dict[str, Any]:
    """Who starts the jobs of a sweep, for its record."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "machine": machine(), "pid": pid, "start": started(pid)}


def driver_of(content: Mapping[str, Any]) -> str | None:
    """The process that starts the jobs of a sweep, in words; None if it has ended.

    Only a process of this machine can be seen.
    """
    driver = content.get("driver")
    if not isinstance(driver, dict) or driver.get("machine") != machine():
        return None
    pid, start = driver.get("pid"), driver.get("start")
    alive = isinstance(pid, int) and start is not None and started(pid) == start
    return f"process {pid} on {driver.get('host')}" if alive else None


def standings(record: SweepRecord) -> list[Standing]:
    """All jobs of a sweep, what several cells share first."""
    content = record.read()
    entries = [*content["shared"], *content["cells"]]
    open_jobs = [e for e in entries if e["status"] == "missing" and e["job"]]
    silence, queued = None, {}
    if open_jobs:
        try:
            queued = queued_jobs()
        except UserError as error:
            silence = str(error)
    is_driven = driver_of(content) is not None and content["launcher"] != "slurm"
    found = [_standing(record, entry, queued, is_driven) for entry in entries]
    if silence is None:
        return found
    lost = {entry["id"] for entry in open_jobs}
    return [
        replace(standing, word="unknown", detail=silence)
        if standing.id in lost and standing.word == "missing"
        else standing
        for standing in found
    ]


def counts(found: list[Standing]) -> str:
    """How many cells stand where, in a line."""
    cells = [standing for standing in found if standing.is_cell]
    number = Counter(standing.word for standing in cells)
    shares = ", ".join(f"{number[word]} {word}" for word in WORDS if number[word])
    return f"{len(cells)} cells: {shares}"


def sweeps_of(folder: Path) -> list[SweepRecord]:
    """The sweeps of an output folder, or the one of a multirun folder, the latest last.

    Raises:
        UserError: There is none.
    """
    folder = folder.parent if folder.name == "sweep.json" else folder
    paths = [path / "sweep.json" for path in (folder, *folder.glob("multirun/*"))]
    found = sorted((p for p in paths if p.is_file()), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(f"{folder}: no sweep in it; give an output folder or a multirun folder")
    return [SweepRecord(path.parent) for path in found]


def _standing(
    record: SweepRecord, entry: Mapping[str, Any], queued: Mapping[str, Place], is_driven: bool
) -> Standing:
    word, detail = entry["status"], entry["error"] or ""
    if word == "finished" and entry["score"] is not None:
        detail = f"dev {entry['score']:.1f}"
    if word == "missing":
        place = queued.get(entry["job"] or "")
        worker = record.worker(entry["id"])
        if place is not None and place.state == "PENDING":
            meaning = meaning_of(place.reason)
            word, detail = "queued", f"SLURM job {entry['job']}: {place.reason}"
            detail += f" ({meaning})" if meaning else ""
        elif place is not None:
            word, detail = "running", f"SLURM job {entry['job']}"
        elif worker is not None:
            word, detail = "running", worker
        elif is_driven and not detail:
            word = "queued"
    is_cell = not entry["id"].startswith("shared-")
    return Standing(entry["id"], label(entry["overrides"]), is_cell, word, detail)
