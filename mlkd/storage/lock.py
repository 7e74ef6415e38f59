"""Locks between processes, on one machine or on a shared file system.

filelock's ``SoftFileLease`` does nearly the same. Two promises break with it: a killed process that
nobody has waited for keeps its lock for the whole lease, and a lock file of another version of mlkd
is taken two seconds after its last sign of life, while its owner works on.
"""

from __future__ import annotations

import _thread
import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from mlkd.storage.process import machine, started

log = logging.getLogger(__name__)

_POLL = 0.2
"""Seconds between looks at a lock that another process holds."""
_SILENT = 600.0
"""Seconds without a sign of life after which a lock of another machine counts as free for whoever
only looks once: as many beats as two machines' clocks may differ."""


class Lock:
    """A lock file that names its host and process and shows signs of life.

    Waiting processes say what they wait for. A lock is taken over when its process is dead (same
    machine), or when its file has not been touched for a minute of the waiting process's own clock
    (other machines, where pids mean nothing and clocks differ).
    """

    def __init__(
        self, path: Path, *, waiting_for: str, beat: float = 5.0, patience: float = 60.0
    ) -> None:
        """Set up.

        Args:
            path: The lock file.
            waiting_for: What the log says that a waiting process waits for.
            beat: Seconds between signs of life.
            patience: Seconds without one after which a lock of another machine is taken over.
        """
        self._path, self._waiting_for = path, waiting_for
        self._beat, self._patience = beat, patience
        pid = os.getpid()
        self._owner = {
            "host": socket.gethostname(),
            "pid": pid,
            "machine": machine(),
            "started": started(pid),
            "thread": threading.get_ident(),
            "time": time.time(),
        }
        self._released = threading.Event()

    def __enter__(self) -> Lock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        said: Any = None
        seen, since = (0, 0), time.monotonic()  # the file and its time, and how long it is so
        while not self._take():
            status = _status(self._path)
            if status is None:
                continue
            if seen != (now := (status.st_ino, status.st_mtime_ns)):
                seen, since = now, time.monotonic()
            owner = _read(self._path)
            if self._is_dead(owner, time.monotonic() - since) and self._take_over(seen):
                log.info("took over the lock of %s from %s", self._waiting_for, _name(owner))
                break
            if owner is not None and said != owner:
                said = owner
                log.info("waiting for %s: %s is at it", self._waiting_for, _name(owner))
            time.sleep(_POLL)
        threading.Thread(target=self._show_life, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        if _read(self._path) == self._owner:
            self._path.unlink(missing_ok=True)

    def _take(self) -> bool:
        """Create the lock file unless it exists."""
        mine = self._write()
        try:
            # A link appears with its content at once, also on network file systems.
            os.link(mine, self._path)
            return True
        except FileExistsError:
            return False
        finally:
            mine.unlink(missing_ok=True)

    def _take_over(self, seen: tuple[int, int]) -> bool:
        """Replace a dead owner's lock file; only one of several waiting processes succeeds."""
        try:
            file = self._path.open("rb+")
        except FileNotFoundError:
            return False
        with file:
            # Whoever else wants to take over waits here, and then finds another file in its place.
            with suppress(OSError):  # a file system without it has only the comparison
                fcntl.flock(file, fcntl.LOCK_EX)
            status = _status(self._path)
            if status is None or (status.st_ino, status.st_mtime_ns) != seen:
                return False
            self._write().replace(self._path)
            return True

    def _write(self) -> Path:
        """The lock's content under another name."""
        name = f".{self._path.name}.{threading.get_ident()}.{machine()}-{os.getpid()}.part"
        mine = self._path.with_name(name)
        mine.write_text(json.dumps(self._owner))
        return mine

    def _is_dead(self, owner: dict[str, Any] | None, silent: float) -> bool:
        """Whether the owner of a lock file ``silent`` seconds without a sign of life is gone."""
        if owner is not None and owner.get("machine") == machine():
            return _is_gone(owner)
        return silent > self._patience

    def _show_life(self) -> None:
        while not self._released.wait(self._beat):
            owner = _read(self._path)
            if self._released.is_set():
                return
            if owner != self._owner:  # this process was suspended, or cut off from the disk
                log.warning("%s has taken over %s; this process stops", _name(owner), self._path)
                _thread.interrupt_main(signal.SIGTERM)
                return
            with suppress(OSError):
                os.utime(self._path)


def holder(path: Path) -> str | None:
    """Which other process holds a lock; None if it is free or its process is dead."""
    owner = _read(path)
    if owner is None:
        return None
    if owner.get("machine") == machine():
        free = owner.get("pid") == os.getpid() or _is_gone(owner)
    else:
        status = _status(path)
        free = status is None or time.time() - status.st_mtime > _SILENT
    return None if free else _name(owner)


def _is_gone(owner: dict[str, Any]) -> bool:
    """Whether a process of this machine has ended."""
    pid = owner.get("pid")
    start = started(pid) if isinstance(pid, int) else None
    return start is None or start != owner.get("started")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _read(path: Path) -> dict[str, Any] | None:
    """Content of a lock file; None if there is none that can be read."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def _name(owner: dict[str, Any] | None) -> str:
    owner = owner or {}
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
