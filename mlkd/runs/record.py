"""The run folder and its ``run.json``."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import logging
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from mlkd.output.errors import UserError
from mlkd.output.secrets import redacted
from mlkd.storage.files import (
    digest,
    encoder_fingerprint,
    reason_of,
    remove_folder,
    write_json,
)
from mlkd.storage.seals import Damaged, compare

log = logging.getLogger(__name__)

State = Literal["reuse", "resume", "run", "damaged", "superseded"]
_KINDS: dict[str, type] = {
    **dict.fromkeys(("id", "link", "stage", "status"), str),
    **dict.fromkeys(("config", "identity", "metrics", "references", "training"), dict),
    "settings": list,
}
"""Types of what a record may hold, where it does."""
DOMAIN_WEIGHTS = "domain_weights"
"""The output of links that weigh layers and domains: the ratios of every validation."""
_PACKAGES = ("torch", "lightning", "transformers", "sentence-transformers", "hydra-core")


class Run:
    """One link of a chain: ``<runs>/<link>-<hash of its identity>/``.

    Attributes:
        link: Its name in the recipe.
        stage: How it trains.
        identity: Everything that decides the result, JSON-able.
        folder: The run folder.
        student: The encoder that it trained, complete once the run is finished.
        checkpoint: Training state, there only while the run is unfinished.
        start: The student before any training in a link that makes a new one, for as long.
    """

    def __init__(self, runs: Path, link: str, stage: str, identity: dict[str, Any]) -> None:
        self.link, self.stage, self.identity = link, stage, identity
        self.id = f"{link}-{digest(identity)}"
        self.folder = runs / self.id
        self.student = self.output("student")
        self.checkpoint = self.folder / "last.ckpt"
        self.start = self.folder / "start"

    @property
    def file(self) -> Path:
        """The run record."""
        return self.folder / "run.json"

    def output(self, name: str) -> Path:
        """Folder of what the link hands over under a name."""
        return self.folder / name

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
        """Note that settings lead to this run (see :func:`mlkd.recipes.identity.link_keys`)."""
        known = self.read().get("settings", [])
        if key not in known:
            self.write("finished", settings=[*known, key])

    def state(self, inputs: Mapping[str, Mapping[str, Any]]) -> tuple[State, str]:
        """What to do with the run, and why.

        Args:
            inputs: By role the run of what the link starts from or aims at, if it is one, and a
                hash of its files, which counts.
        """
        try:
            record = self.read()
            if record.get("status") == "finished":
                if record.get("identity") != json.loads(json.dumps(self.identity)):
                    raise Damaged(f"{self.file}: damaged (its identity is not that of its name)")
                check_outputs(self.folder, record)
        except Damaged as error:
            return "damaged", str(error)
        if not record and self.student.exists():
            return "damaged", f"{self.file}: missing"
        for role, now_there in inputs.items():
            known = record.get("inputs", {}).get(role) or {}
            if record and known.get("content") != now_there["content"]:
                return "superseded", f"the {role} that it was trained with is another one now"
        if record.get("status") == "finished":
            return "reuse", f"finished {record['finished']}"
        if self.checkpoint.is_file():
            return "resume", f"it was {_ended(record)}"
        return "run", f"it was {_ended(record)}" if record else self._why_new()

    def _why_new(self) -> str:
        """What makes this run another one than the most similar run of the same name."""
        differences = []
        for other in self.folder.parent.glob(f"{self.link}-*/run.json"):
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
        names = {"id": self.id, "link": self.link, "stage": self.stage}
        record = self.read() | names | {"status": status}
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
    for key, kind in _KINDS.items():
        if not isinstance(content.get(key), kind | None):
            raise Damaged(f"{path}: damaged (its {key} is none)")
    return content if "link" in content or "stage" not in content else _of_old(content)


def _of_old(record: dict[str, Any]) -> dict[str, Any]:
    """A record of mlkd 0.1, which called a link a stage and had one output."""
    output = {"content": record.get("student"), "files": record.get("files", {})}
    outputs = {"outputs": {"student": output}} if "student" in record else {}
    return record | {"link": record["stage"]} | outputs


def _ended(record: Mapping[str, Any]) -> str:
    """How an unfinished run ended, in a word of ours."""
    status = record.get("status")
    return status if status in ("running", "interrupted", "failed") else "cut off"


def check_outputs(folder: Path, record: Mapping[str, Any]) -> None:
    """Compare what a finished run handed over with the record of the run.

    Raises:
        Damaged: It is not what the run wrote, or the record is none of a finished run.
    """
    outputs = record.get("outputs")
    if not isinstance(outputs, dict) or "student" not in outputs:
        raise Damaged(f"{folder / 'run.json'}: damaged (it names no outputs)")
    for name, output in outputs.items():
        if not isinstance(output, dict) or not isinstance(output.get("files"), dict):
            raise Damaged(f"{folder / 'run.json'}: damaged (its checksums are none)")
        compare(folder / name, output["files"])
        if output.get("content") != encoder_fingerprint(folder / name):
            raise Damaged(f"{folder / name}: not the folder that the run wrote")
    if not isinstance(record.get("finished"), str):
        raise Damaged(f"{folder / 'run.json'}: damaged (it does not say when it was finished)")


def inputs_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Names of the runs that a run started from or learned from, by role."""
    inputs = record.get("inputs")
    entries = inputs.items() if isinstance(inputs, dict) else ()
    runs = {role: entry.get("run") for role, entry in entries if isinstance(entry, dict)}
    return {role: run for role, run in runs.items() if isinstance(run, str) and run}


def chain_of(folder: Path, records: Mapping[Path, dict[str, Any]]) -> list[Path]:
    """The links that led to a run, it last, as far as their folders are among ``records``.

    Each goes on from the run of its start, or from the one whose weights its new student copied.
    """
    chain = [folder]
    while (before := _link_before(chain[0], records)) is not None and before not in chain:
        chain.insert(0, before)
    return chain


def _link_before(folder: Path, records: Mapping[Path, dict[str, Any]]) -> Path | None:
    inputs = inputs_of(records[folder])
    name = inputs.get("start", inputs.get("source"))
    before = folder.parent / name if name else None
    return before if before in records else None


def link_of(folder: Path) -> str:
    """The name of the link whose run a folder is; where its record is damaged, the folder's."""
    try:
        return str(read_record(folder).get("link", folder.name))
    except UserError as error:
        warn_once(str(error))
        return folder.name


@cache
def warn_once(line: str) -> None:
    """Log what several places come across."""
    log.warning("%s", line)


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
