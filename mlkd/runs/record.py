"""The run folder and its ``run.json``."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import resource
import subprocess
from pathlib import Path
from typing import Any

from mlkd.files import digest, encoder_fingerprint, write_json

_PACKAGES = ("torch", "lightning", "transformers", "sentence-transformers", "hydra-core")


class Run:
    """One link of a chain: ``<runs>/<stage>-<hash of its identity>/``.

    Attributes:
        identity: Everything that decides the result, JSON-able.
        folder: The run folder.
        student: The hand-over to the next link, complete once the run is finished.
        checkpoint: Training state, there only while the run is unfinished.
        best: Weights of the best validation so far, likewise.
    """

    def __init__(self, runs: Path, stage: str, identity: dict[str, Any]) -> None:
        self.stage, self.identity = stage, identity
        self.id = f"{stage}-{digest(identity)}"
        self.folder = runs / self.id
        self.student = self.folder / "student"
        self.checkpoint = self.folder / "last.ckpt"
        self.best = self.folder / "best.safetensors"

    def read(self) -> dict[str, Any]:
        """Content of ``run.json``; empty if there is none."""
        try:
            text = (self.folder / "run.json").read_text(encoding="utf-8")
            content: dict[str, Any] = json.loads(text)
        except (FileNotFoundError, ValueError):
            return {}
        return content

    def state(self) -> tuple[str, str]:
        """What to do with the run, and why: ``reuse``, ``resume``, ``run`` or ``damaged``."""
        record = self.read()
        if record.get("status") == "finished":
            if self.student.is_dir() and encoder_fingerprint(self.student) == record["student"]:
                return "reuse", f"finished {record['finished']}"
            return "damaged", "its student folder is not the one that the run wrote"
        if self.checkpoint.is_file():
            return "resume", f"it was {record.get('status', 'cut off')}"
        return "run", f"it was {record['status']}" if record else "no such run yet"

    def write(self, status: str, **more: Any) -> None:
        """Update ``run.json``."""
        record = self.read() | {"id": self.id, "stage": self.stage, "status": status}
        write_json(self.folder / "run.json", record | {"identity": self.identity} | more)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Code and library versions."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **versions, "code": _code_version()}


def peak_memory_mib() -> int:
    """Largest resident memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _code_version() -> str:
    """Commit of the checkout that runs, with ``-dirty`` for changed files."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return importlib.metadata.version("mlkd")
