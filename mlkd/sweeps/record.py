"""``sweep.json``: what a sweep consists of and what has come of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from mlkd.output.errors import UserError
from mlkd.output.secrets import redacted
from mlkd.runs.record import now
from mlkd.storage.files import reason_of, write_json
from mlkd.storage.lock import Lock, holder

if TYPE_CHECKING:  # planning imports Hydra, which takes long
    from mlkd.sweeps.tree import Job


_HEAD = {"command": str, "launcher": str, "shared": list, "cells": list}
_ENTRY = {
    "id": str,
    "overrides": dict,
    "status": str,
    "error": str | None,
    "job": str | None,
    "score": int | float | None,
}
"""What every reader of a record relies on, and the types of the values."""


def _is_record(content: object) -> bool:
    """Whether JSON is the record of a sweep."""
    return _has(content, _HEAD) and all(
        _has(entry, _ENTRY) for name in ("shared", "cells") for entry in content[name]
    )


def _has(value: object, kinds: Mapping[str, Any]) -> TypeGuard[dict[str, Any]]:
    """Whether a JSON object has some keys with values of these types."""
    if not isinstance(value, dict):
        return False
    return all(key in value and isinstance(value[key], kind) for key, kind in kinds.items())


class SweepRecord:
    """The record of one multirun folder; jobs enter their own lines, wherever they run.

    Fields of the whole: ``name``, ``command``, ``launcher``, ``output_dir`` (runs are in ``runs/``
    of it), ``impossible`` (overrides in a line: why), ``driver`` (the process of the latest call),
    ``updated``.

    ``cells`` and ``shared`` (what several cells share) are lists of entries with ``id``, ``key``
    (see :func:`mlkd.recipes.identity.link_keys`), ``overrides``, ``stage`` (the last link; null =
    only data and targets), ``runs`` (ids of the run folders of its links so far, in order),
    ``status`` (``finished``, ``failed`` or ``missing``), ``error`` (one line or null), ``log`` (a
    path), ``job`` (number of its SLURM job or null), ``score`` (the selecting dev score or null)
    and ``seconds`` (null or of its last call).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "sweep.json"

    def read(self) -> dict[str, Any]:
        """The whole content; empty before the first call of the sweep.

        Raises:
            UserError: It is damaged, or cannot be read.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({reason_of(error)})") from None
        except (ValueError, RecursionError):
            raise UserError(f"{self.path}: damaged (not JSON); move it away to plan anew") from None
        if not _is_record(content):
            raise UserError(f"{self.path}: no record of a sweep; move it away to plan anew")
        found: dict[str, Any] = content
        return found

    def entries(self) -> dict[str, dict[str, Any]]:
        """All entries by their id."""
        content = self.read()
        return {e["id"]: e for e in [*content.get("shared", []), *content.get("cells", [])]}

    def start(
        self, head: dict[str, Any], jobs: Sequence[Job], known: dict[str, dict[str, Any]]
    ) -> None:
        """Write the plan of a call; entries of earlier calls are kept.

        Args:
            head: Fields of the whole.
            jobs: All jobs of the sweep.
            known: Fields of entries that this call knows better, by id.
        """
        with self._lock():
            old = self.entries()
            parts: dict[str, list[Any]] = {"shared": [], "cells": []}
            for job in jobs:
                entry = self._entry(job) | old.get(job.id, {}) | known.get(job.id, {})
                parts["cells" if job.is_cell else "shared"].append(entry)
            self._write(head | parts)

    def update(self, identity: str, **fields: Any) -> None:
        """Change fields of one entry."""
        with self._lock():
            content = self.read()
            for entry in [*content["shared"], *content["cells"]]:
                if entry["id"] == identity:
                    entry.update(fields)
            self._write(content)

    def log(self, identity: str) -> Path:
        """The log file of one entry, appended to by each of its lives."""
        return self.folder / "logs" / f"{identity}.log"

    def job(self, identity: str) -> Path:
        """What a job has to do: its resolved configuration, the version of the code."""
        return self.folder / "jobs" / f"{identity}.json"

    def running(self, identity: str) -> Lock:
        """Held by the process that works on a job."""
        return Lock(self._running(identity), waiting_for=identity)

    def worker(self, identity: str) -> str | None:
        """The process that works on a job, in words; None if there is none."""
        return holder(self._running(identity))

    def link(self, name: str, run: Path) -> None:
        """Make ``cells/<name>`` lead to the run folder of a cell."""
        link = self.folder / "cells" / name
        link.parent.mkdir(exist_ok=True)
        temporary = link.with_name(f".{name[:200]}.{os.getpid()}")
        temporary.symlink_to(os.path.relpath(run, link.parent))
        temporary.replace(link)

    def _write(self, content: dict[str, Any]) -> None:
        write_json(self.path, redacted(content | {"updated": now()}))

    def _entry(self, job: Job) -> dict[str, Any]:
        return {
            "id": job.id,
            "key": job.key,
            "overrides": job.overrides,
            "stage": job.upto,
            "runs": [],
            "status": "missing",
            "error": None,
            "log": str(self.log(job.id)),
            "job": None,
            "score": None,
            "seconds": None,
        }

    def _running(self, identity: str) -> Path:
        return self.folder / "jobs" / f".{identity}.lock"

    def _lock(self) -> Lock:
        return Lock(self.folder / ".sweep.lock", waiting_for="the sweep's record")
