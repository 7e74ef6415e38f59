"""The run folder and its ``run.json``."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import resource
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from mlkd.output.errors import UserError
from mlkd.output.secrets import redacted
from mlkd.storage.files import (
    digest,
    encoder_fingerprint,
    file_sha256,
    reason_of,
    remove_folder,
    write_json,
)
from mlkd.storage.seals import Damaged, compare

State = Literal["reuse", "resume", "run", "damaged", "superseded"]
_PACKAGES = ("torch", "lightning", "transformers", "sentence-transformers", "hydra-core")


class Run:
    """One link of a chain: ``<runs>/<stage>-<hash of its identity>/``.

    Attributes:
        identity: Everything that decides the result, JSON-able.
        folder: The run folder.
        student: The hand-over to the next link, complete once the run is finished.
        checkpoint: Training state, there only while the run is unfinished.
        start: The student before any training in a link that makes a new one, for as long.
    """

    def __init__(self, runs: Path, stage: str, identity: dict[str, Any]) -> None:
        self.stage, self.identity = stage, identity
        self.id = f"{stage}-{digest(identity)}"
        self.folder = runs / self.id
        self.student = self.folder / "student"
        self.checkpoint = self.folder / "last.ckpt"
        self.start = self.folder / "start"

    @property
    def file(self) -> Path:
        """The run record."""
        return self.folder / "run.json"

    def best(self, step: int) -> Path:
        """Weights of the best validation, there only while the run is unfinished."""
        return self.folder / f"best-{step}.safetensors"

    def last_step(self) -> str:
        """From where the run can go on, in words."""
        if not self.checkpoint.is_file():
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.checkpoint}"

    def read(self) -> dict[str, Any]:
        """Content of ``run.json`` (see :func:`read_record`); empty if there is none."""
        content = read_record(self.folder)
        if content.get("id", self.id) != self.id:
            raise Damaged(f"{self.file}: not the record of this run")
        return content

    def add_settings(self, key: str) -> None:
        """Note that settings lead to this run (see :func:`mlkd.recipes.links.link_keys`)."""
        known = self.read().get("settings", [])
        if key not in known:
            self.write("finished", settings=[*known, key])

    def state(self, upstream: str | None) -> tuple[State, str]:
        """What to do with the run, and why.

        Args:
            upstream: Fingerprint of the student that the link starts from, if it does.
        """
        try:
            record = self.read()
            if record.get("status") == "finished":
                if record.get("identity") != json.loads(json.dumps(self.identity)):
                    raise Damaged(f"{self.file}: damaged (its identity is not that of its name)")
                check_student(self.folder, record)
        except Damaged as error:
            return "damaged", str(error)
        if not record and self.student.exists():
            return "damaged", f"{self.file}: missing"
        if record.get("upstream", upstream) != upstream:
            return "superseded", "the student that it started from is another one now"
        if record.get("status") == "finished":
            return "reuse", f"finished {record['finished']}"
        if self.checkpoint.is_file():
            return "resume", f"it was {record.get('status', 'cut off')}"
        return "run", f"it was {record.get('status')}" if record else self._why_new()

    def _why_new(self) -> str:
        """What makes this run another one than the most similar run of its stage."""
        differences = []
        for other in self.folder.parent.glob(f"{self.stage}-*/run.json"):
            with suppress(UserError, KeyError, AttributeError):
                theirs = flatten(read_record(other.parent)["identity"])
                mine = flatten(json.loads(json.dumps(self.identity)))
                keys = sorted(k for k in mine.keys() | theirs if mine.get(k) != theirs.get(k))
                differences.append((len(keys), other.parent.name, keys))
        if not differences:
            return "no such run yet"
        number, name, keys = min(differences)
        more = f" and {number - 4} more" if number > 4 else ""
        return f"no such run yet; {name} differs in {', '.join(keys[:4])}{more}"

    def supersede(self) -> Path:
        """Move the run aside, so that it can run again and nothing is lost."""
        place = self.folder.parent / "superseded"
        place.mkdir(exist_ok=True)
        number = 1 + len(list(place.glob(f"{self.id}-*")))
        self.folder.rename(place / f"{self.id}-{number}")
        return place / f"{self.id}-{number}"

    def clear(self) -> None:
        """Remove what only an unfinished run needs."""
        self.checkpoint.unlink(missing_ok=True)
        remove_folder(self.start)
        for path in self.folder.glob("best*.safetensors"):
            path.unlink()

    def write(self, status: str, **more: Any) -> None:
        """Update ``run.json``."""
        record = self.read() | {"id": self.id, "stage": self.stage, "status": status}
        record = redacted(record | more) | {"identity": self.identity}
        record = json.loads(json.dumps(record))  # as it will be read, for the checksum
        write_json(self.file, record | {"checksum": digest(record, 64)})


def read_record(folder: Path) -> dict[str, Any]:
    """Content of a run folder's ``run.json`` without its checksum; empty if there is none.

    Raises:
        Damaged: It is no record, or not the one that was written.
        UserError: It cannot be read.
    """
    path = folder / "run.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason_of(error)})") from error
    except (ValueError, RecursionError):
        raise Damaged(f"{path}: damaged (not JSON)") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path}: damaged (no run record)")
    checksum = content.pop("checksum", None)
    if checksum is not None and checksum != digest(content, 64):
        raise Damaged(f"{path}: damaged (its checksum is not that of its content)")
    return content


def check_student(folder: Path, record: Mapping[str, Any]) -> None:
    """Compare the student of a finished run with the record of the run.

    Raises:
        Damaged: It is not the one that the run wrote, or the record is none of a finished run.
    """
    student, files = folder / "student", record.get("files", {})
    if not isinstance(files, dict):
        raise Damaged(f"{folder / 'run.json'}: damaged (its checksums are none)")
    compare(student, files)
    known = record.get("student"), record.get("finished")
    if known[0] != encoder_fingerprint(student) or not isinstance(known[1], str):
        raise Damaged(f"{student}: not the folder that the run wrote")


def link_before(folder: Path, records: Mapping[Path, dict[str, Any]]) -> Path | None:
    """The link that a run goes on from, as far as its folder is among those of ``records``."""
    identity = records[folder].get("identity", {})
    if "start" in identity:
        start = folder.parent / identity["start"]
        return start if start in records else None
    for other, record in records.items():
        made = record.get("stage") == "assistant" and record.get("student")
        if made and made == identity.get("assistant") and other.parent == folder.parent:
            return other
    return None


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dictionaries by their dotted keys; an empty dictionary is a leaf."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, dict) and value
        found |= flatten(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return found


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """Code and library versions."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **versions, "code": _code_version()}


def code_digest() -> str:
    """Hash of the package's own source files, committed or not."""
    root = Path(__file__).parent.parent
    files = sorted(root.rglob("*.py"))
    return digest([(str(path.relative_to(root)), file_sha256(path)) for path in files])


def peak_memory_mib() -> int:
    """Largest resident memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _code_version() -> str:
    """Commit of the checkout that runs, with ``-dirty`` for changed files; else the release."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():  # a repository around an installation is not ours
        return importlib.metadata.version("mlkd")
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
