"""Which files say what happened to a job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlkd.sweeps.record import SweepRecord

_FAILED, _TRACEBACK = " error: ", "Traceback (most recent call last)"


def logs_of(record: SweepRecord, entry: Mapping[str, Any]) -> list[Path]:
    """Files of a job that exist and are not empty, the one that says most of a failure first.

    Its own log, what libraries printed into a local process, and what SLURM wrote of its last job.
    """
    own = record.log(entry["id"])
    paths = [own, own.with_suffix(".out")]
    if entry["job"]:
        number = entry["job"]
        paths += [record.folder / "slurm" / f"{number}_0_log.{kind}" for kind in ("err", "out")]
    found = [path for path in paths if path.is_file() and path.stat().st_size]
    # SLURM's file of a job that has said why it failed has a traceback of the launcher alone.
    return sorted(found, key=lambda path: not (_has(path, _FAILED) or _has(path, _TRACEBACK)))


def _has(path: Path, words: str) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return any(words in line for line in file)


def worth_reading(
    record: SweepRecord, entries: Iterable[Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], Path]]:
    """The best log of each job that has one; jobs that failed with a traceback come first."""
    found = [(entry, logs[0]) for entry in entries if (logs := logs_of(record, entry))]

    def order(pair: tuple[Mapping[str, Any], Path]) -> tuple[bool, bool]:
        entry, path = pair
        return entry["status"] != "failed", not _has(path, _TRACEBACK)

    return sorted(found, key=order)
