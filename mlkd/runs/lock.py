"""Locks between processes, on one machine or on a shared file system."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

_BEAT = 5.0
"""Seconds between signs of life."""
_STALE = 60.0
"""A lock of another host without a sign of life for so long is taken over (seconds)."""


class Lock:
    """A lock file that names its host and process and shows signs of life.

    Waiting processes say once what they wait for. A lock is taken over when its process is dead
    (same host) or has given no sign of life for a minute (other hosts, where pids mean nothing).
    """

    def __init__(self, path: Path, *, waiting_for: str) -> None:
        self._path = path
        self._waiting_for = waiting_for
        self._owner = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
        self._released = threading.Event()

    def __enter__(self) -> Lock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        said = False
        while not self._take():
            if not said:
                owner = self._read() or {}
                log.info(
                    "waiting for %s: process %s on %s is at it",
                    self._waiting_for,
                    owner.get("pid", "?"),
                    owner.get("host", "?"),
                )
                said = True
            time.sleep(0.2)
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        if self._read() == self._owner:
            self._path.unlink(missing_ok=True)

    def _take(self) -> bool:
        """Create the lock file, or take over one whose owner is gone."""
        mine = self._path.with_name(f".{self._path.name}.{os.getpid()}.{threading.get_ident()}")
        mine.write_text(json.dumps(self._owner))
        try:
            # A link appears with its content at once, also on network file systems.
            os.link(mine, self._path)
            return True
        except FileExistsError:
            if self._is_stale():
                self._break()
            return False
        finally:
            mine.unlink(missing_ok=True)

    def _break(self) -> None:
        """Move a dead owner's lock away; only one of several waiting processes succeeds."""
        grave = self._path.with_name(f".{self._path.name}.dead.{os.getpid()}")
        try:
            self._path.rename(grave)
        except FileNotFoundError:
            return
        # Between the check and the move another process may have taken over: give it back.
        if json.loads(grave.read_text()).get("pid") == os.getpid() or _alive(grave):
            try:
                os.link(grave, self._path)
            except FileExistsError:
                pass
        grave.unlink(missing_ok=True)

    def _is_stale(self) -> bool:
        try:
            return not _alive(self._path)
        except FileNotFoundError:
            return False

    def _read(self) -> dict[str, Any] | None:
        try:
            owner: dict[str, Any] = json.loads(self._path.read_text())
            return owner
        except (FileNotFoundError, ValueError):
            return None

    def _beat(self) -> None:
        while not self._released.wait(_BEAT):
            try:
                os.utime(self._path)
            except OSError:
                return


def _alive(path: Path) -> bool:
    """Whether the owner named in a lock file still works."""
    age = time.time() - path.stat().st_mtime
    try:
        owner = json.loads(path.read_text())
    except ValueError:
        return age < _STALE
    if owner["host"] != socket.gethostname():
        return age < _STALE
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
