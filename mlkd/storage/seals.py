"""Checksums: whether the files of a folder are still those that were written."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from mlkd.output.errors import UserError
from mlkd.storage.files import (
    SEAL,
    VERIFIED,
    file_sha256,
    remove_folder,
    replacing_folder,
    write_json,
)

log = logging.getLogger(__name__)

_QUICK = 256 << 20
"""Folders up to so many bytes are hashed whenever they are opened, larger ones after a change of
a file's size or time (a disk gives about a GiB a second)."""


class Damaged(UserError):
    """A file is not the one that was written; the message is one line that names it."""


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in {SEAL, VERIFIED}
    }


def compare(folder: Path, expected: Mapping[str, str]) -> None:
    """Compare files with their checksums.

    Raises:
        Damaged: One is missing or another.
    """
    for name, checksum in expected.items():
        path = folder / name
        if ".." in path.parts or not path.is_relative_to(folder):
            raise Damaged(f"{folder}: the path {name} leaves the folder")
        if not path.is_file():
            raise Damaged(f"{path}: missing")
        if file_sha256(path) != checksum:
            raise Damaged(f"{path}: damaged (its SHA-256 is not the one it was written with)")


def seal(folder: Path, name: str) -> None:
    """Write the checksums of a complete folder, and the name under which it will be looked for."""
    write_json(folder / SEAL, {"": name, **hashes(folder)})


def check_seal(folder: Path, name: str) -> None:
    """Compare a sealed folder with its checksums.

    Raises:
        Damaged: It is incomplete, was changed, or was sealed under another name.
    """
    try:
        expected = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise Damaged(f"{folder}: incomplete (it has no readable {SEAL})") from None
    if not isinstance(expected, dict) or not expected.keys() - {""}:
        raise Damaged(f"{folder / SEAL}: damaged (it holds no checksums)")
    if expected.pop("", name) != name:
        raise Damaged(f"{folder}: its files belong to something else")
    state = _state(folder, expected)
    if sum(size for size, _ in state.values()) > _QUICK and state == _verified(folder):
        return
    compare(folder, expected)
    with suppress(UserError):  # a cache that others only may read
        write_json(folder / VERIFIED, state)


def sealed(folder: Path, make: Callable[[Path], None]) -> Path:
    """Give a cache folder that is whole: the one that exists, or one made by ``make``."""
    if folder.exists():
        try:
            check_seal(folder, folder.name)
            return folder
        except Damaged as error:
            log.warning("%s; it is made again", error)
            remove_folder(folder)
    with replacing_folder(folder) as part:
        make(part)
        seal(part, folder.name)
    return folder


def _state(folder: Path, names: Mapping[str, str]) -> dict[str, list[int]]:
    """Size and time of each file that is there."""
    found = {}
    for name in names:
        with suppress(OSError):
            status = (folder / name).stat()
            found[name] = [status.st_size, status.st_mtime_ns]
    return found


def _verified(folder: Path) -> object:
    try:
        return json.loads((folder / VERIFIED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
