"""What is in an output folder: runs, what they need of each other, and what nothing needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlkd.output.errors import UserError
from mlkd.runs.record import inputs_of, read_record
from mlkd.storage.files import remove_folder
from mlkd.storage.lock import Lock, holder

_UNFINISHED = {"cut off", "interrupted", "failed", "empty", "superseded"}


@dataclass(frozen=True, eq=False)
class RunState:
    """How a run stands.

    Attributes:
        folder: Where it is.
        link: Its name in the recipe.
        status: ``finished``, ``running``, ``interrupted``, ``failed``, ``cut off`` (its process was
            killed), ``empty``, ``superseded`` or ``damaged``.
        means: Mean scores by split and kind, empty without any.
        is_result: Whether a command asked for it, and not only for a run that needs it.
        needs: Names of the runs it started from or learned from.
    """

    folder: Path
    link: str
    status: str
    means: dict[str, dict[str, float | None]]
    is_result: bool
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the link and hash."""
        return self.folder.name

    @cached_property
    def size(self) -> int:
        """Bytes on disk when first asked for; a network disk takes its time to tell."""
        return folder_bytes(self.folder)


def inventory(output: Path) -> list[RunState]:
    """All runs of an output folder, by name."""
    runs = output / "runs"
    places = [*runs.glob("*-*"), *runs.glob("superseded/*-*")]
    folders = sorted((p for p in places if p.is_dir() and p.name[0] != "."), key=lambda p: p.name)
    return [_entry(folder, _record(folder)) for folder in folders]


def needed_by(entries: list[RunState]) -> dict[str, list[str]]:
    """Names of the runs that need each run, directly or through others."""
    needs = {entry.name: entry.needs for entry in entries}
    users: dict[str, list[str]] = {entry.name: [] for entry in entries}
    for entry in entries:
        if entry.status == "superseded":
            continue
        for name in _upstream(entry.name, needs):
            users[name].append(entry.name)
    return users


def prunable(output: Path, entries: list[RunState]) -> list[tuple[RunState, str]]:
    """Runs that nothing needs, each with the reason.

    A finished run stays if a command asked for it, or if any other run that stays or may go on
    needs it; while a process works in the folder, every finished run stays.
    """
    users = needed_by(entries)
    busy = _busy(output)
    found = []
    for entry in entries:
        if entry.status in _UNFINISHED and not users[entry.name]:
            found.append((entry, entry.status))
        elif entry.status == "finished" and not (entry.is_result or users[entry.name] or busy):
            found.append((entry, "no other run needs it"))
    return found


def prune(output: Path, chosen: list[RunState]) -> Iterator[RunState]:
    """Remove runs, each only if nothing needs it still; gives those that were removed."""
    for entry in chosen:
        with Lock(_lock(entry.folder), waiting_for=entry.name):
            if entry.folder in {e.folder for e, _ in prunable(output, inventory(output))}:
                remove_folder(entry.folder)
                yield entry


def folder_bytes(folder: Path) -> int:
    """Bytes of all files of a folder."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process may remove it just now
            total += 0 if path.is_dir() else path.lstat().st_size
    return total


def _record(folder: Path) -> dict[str, Any] | None:
    """A run record; empty if there is none, None if it is damaged."""
    try:
        return read_record(folder)
    except UserError:
        return None


def _entry(folder: Path, record: dict[str, Any] | None) -> RunState:
    status = _status(folder, record)
    record = record or {}
    link = str(record.get("link", folder.name))
    config = record.get("config") or {}
    means = _means(record)
    # References are there once a chain ended here, also if it was begun as a part of another one.
    is_result = "references" in record or config.get("stage", link) == link
    needed = tuple(sorted(set(inputs_of(record).values())))
    return RunState(folder, link, status, means, is_result, needed)


def _means(record: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Mean scores of a record; empty if there are none, or if they are of another version."""
    with suppress(LookupError, TypeError, AttributeError, ValueError):
        means = record["metrics"]["scores"]["mean"].items()
        return {
            split: {kind: None if x is None else float(x) for kind, x in kinds.items()}
            for split, kinds in means
        }
    return {}


def _status(folder: Path, record: dict[str, Any] | None) -> str:
    if record is None:
        return "damaged"
    if folder.parent.name == "superseded":
        return "superseded"
    if holder(_lock(folder)):
        return "running"
    if not record:
        return "damaged" if (folder / "student").exists() else "empty"
    status = str(record.get("status"))
    return "cut off" if status == "running" else status


def _upstream(name: str, needs: dict[str, tuple[str, ...]]) -> set[str]:
    """Runs that a run needs, directly or through others, as far as they are there."""
    found: set[str] = set()
    left = [name]
    while left:
        new = {n for n in needs[left.pop()] if n in needs} - found - {name}
        found |= new
        left += new
    return found


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _busy(output: Path) -> bool:
    """Whether a process works in the folder."""
    places = [*(output / "runs").glob(".*.lock"), *(output / "cache").glob("*.lock")]
    return any(holder(path) for path in places)
