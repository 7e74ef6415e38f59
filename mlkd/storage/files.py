"""Hashes of files, and writing that is never seen half done."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from mlkd.output.errors import UserError
from mlkd.storage.process import machine, started

log = logging.getLogger(__name__)

SEAL = "sha256.json"
"""Checksums of a cache folder (see :mod:`mlkd.storage.seals`)."""
VERIFIED = ".verified.json"
"""Beside them: size and time of the files when they were last compared with their checksums."""
_ABANDONED = 24 * 3600.0
"""Temporary files of other machines are left alone until nobody has written for so long (s)."""
PROMPTS = "config_sentence_transformers.json"
"""Prompts of an encoder folder, beside the versions of what wrote it."""
_FINGERPRINT = (".safetensors", ".json", ".txt", ".model")
"""Ends of the names of files that decide an encoder's vectors, but for these:"""
_NO_FINGERPRINT = {PROMPTS, "evaluation.json", SEAL, VERIFIED}


def digest(value: Any, length: int = 16) -> str:
    """Hash of a JSON-able value, independent of key order; others are a TypeError."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encoder_fingerprint(folder: Path) -> str:
    """Hash of what decides an encoder folder's vectors: weights, configs, tokenizer, prompt.

    A chain asks for those of a few folders some dozens of times.
    """
    names = sorted(
        p
        for place in ("*", "*/*")
        for p in folder.glob(place)
        if p.name.endswith(_FINGERPRINT) and p.name not in _NO_FINGERPRINT
    )
    parts = [(str(p.relative_to(folder)), known_sha256(p)) for p in names]
    if prompt := default_prompt(folder):
        parts.append(("prompt", prompt))
    return digest(parts, 32)


def prompts_of(folder: Path) -> tuple[dict[str, str], str | None]:
    """Prompts of an encoder folder by name, and the name of the one that is used by default.

    Raises:
        UserError: Its file of prompts is damaged.
    """
    path = folder / PROMPTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        given = {str(name): str(text) for name, text in content["prompts"].items() if text}
        return given, content["default_prompt_name"]
    except (FileNotFoundError, KeyError):  # of versions that knew no prompts
        return {}, None
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: not the configuration of an encoder") from None


def default_prompt(folder: Path) -> str:
    """What an encoder folder puts before each sentence by default; mostly nothing."""
    prompts, name = prompts_of(folder)
    return prompts.get(name, "") if name is not None else ""


def known_sha256(path: Path) -> str:
    """SHA-256 of a file's content; a process reads it again only if it has changed."""
    status = path.stat()
    return _sha256_as_of(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns,
                         status.st_ctime_ns)  # fmt: skip


@lru_cache(maxsize=4096)
def _sha256_as_of(path: Path, *stamp: int) -> str:
    """SHA-256 of a file that is as it was when it had this stamp."""
    return file_sha256(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside the target and rename, so that readers see the old or the new file."""
    with replacing(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file; its columns are all keys, and empty where a row lacks one."""
    names = dict.fromkeys(name for row in rows for name in row)
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        writer.writerows(rows)


def new_array(path: Path, kind: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A memory-mapped ``.npy`` file to fill in, whose space on the disk is already taken.

    Without that a full disk would end the process with a signal in the middle of the writing.
    """
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    with path.open("rb+") as file:
        take_space(file.fileno(), path.stat().st_size)
    return array


def take_space(file: int, size: int) -> None:
    """Make a file so many bytes long, and have the disk keep them for it.

    It has to be open for reading too: where the file system cannot do it, the C library reads and
    writes a byte of every block.
    """
    os.truncate(file, size)
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file path; on success it is flushed to disk and takes the target's name.

    Raises:
        UserError: It cannot be written; what was there before is as it was.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _settle([temporary])
        temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # as torch and safetensors fail
        raise UserError(f"{path}: cannot be written ({reason_of(error)})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder; on success it takes the target's name.

    If another process has put the target there in the meantime, theirs stays.

    Raises:
        UserError: It cannot be written.
    """
    with _filled(_temporary(path), path) as temporary:
        yield temporary
        _settle([p for p in temporary.rglob("*") if p.is_file() and not p.is_symlink()])
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise


@contextmanager
def replacing_files(folder: Path, removed: Collection[str] = ()) -> Iterator[Path]:
    """Give a temporary folder; on success its files take the places of those in ``folder``.

    All are on the disk before the first takes its place, so that none is beside one of another
    time.

    Args:
        folder: Where they go; made if there is none.
        removed: Names of files that go where the temporary folder has none of that name.

    Raises:
        UserError: They cannot be written; what was there before is as it was.
    """
    with _filled(_temporary(folder / "new"), folder) as temporary:
        yield temporary
        files = [file for file in temporary.iterdir() if file.is_file()]
        _settle(files)
        for file in files:
            file.replace(folder / file.name)
        for name in set(removed) - {file.name for file in files}:
            (folder / name).unlink(missing_ok=True)


@contextmanager
def _filled(temporary: Path, target: Path) -> Iterator[Path]:
    """An empty folder for a while, to be filled with what ``target`` is to have.

    Raises:
        UserError: It cannot be written.
    """
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
    except Exception as error:
        # Errors of files elsewhere, as a corpus that cannot be read, speak for themselves.
        if not _concerns(error, temporary):
            raise
        if isinstance(error, UserError):
            raise UserError(str(error).replace(str(temporary), str(target))) from error
        raise UserError(f"{target}: cannot be written ({reason_of(error)})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _settle(files: Sequence[Path]) -> None:
    """Have the disk keep files, which whom the umask lets may read."""
    mode_of_new_files(files)
    for file in files:
        with file.open("rb") as written:
            os.fsync(written.fileno())


def mode_of_new_files(files: Sequence[Path]) -> None:
    """Let files be read by whom the umask lets read new ones.

    safetensors writes for the owner alone, so that no colleague, and no user of a container, could
    load a model.
    """
    for folder in {file.parent for file in files}:
        probe = _temporary(folder / "mode")
        probe.touch()  # as the umask and the access list of the folder say
        mode = probe.stat().st_mode & 0o666
        probe.unlink()
        for file in files:
            if file.parent == folder:
                file.chmod(file.stat().st_mode | mode)


def reason_of(error: Exception) -> str:
    """What went wrong, in the system's words where it was the system, as one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def remove_folder(path: Path) -> None:
    """Remove a folder that others may look for: it disappears at once."""
    grave = _temporary(path.with_name(f"{path.name}.removed"))
    with suppress(FileNotFoundError):
        path.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders in ``folder`` that killed processes left behind."""
    for path in folder.glob(".*.part"):
        try:
            where, pid = path.name.split(".")[-2].split("-")
            if _forsaken(path, where, int(pid)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                log.info("removed %s, which an ended process left behind", path)
        except (ValueError, IndexError, OSError):
            continue  # not one of ours, or somebody else removes it just now


def _forsaken(path: Path, where: str, pid: int) -> bool:
    """Whether nobody works on a temporary file any more."""
    if where == machine():
        return started(pid) is None
    newest = max(p.lstat().st_mtime for p in (path, *path.rglob("*")))
    return time.time() - newest > _ABANDONED


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{machine()}-{os.getpid()}.part")


def _concerns(error: Exception, folder: Path) -> bool:
    """Whether an error is about writing into the folder."""
    if isinstance(error, UserError):  # which speaks of a file within the folder
        return str(folder) in str(error)
    if not isinstance(error, OSError):  # as the libraries that are written in Rust fail
        return isinstance(error, SafetensorError) or "os error" in str(error)
    if named := [str(name) for name in (error.filename, error.filename2) if name is not None]:
        return any(str(folder) in name or str(folder).startswith(name) for name in named)
    full = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
    return error.errno in full or "requested and" in str(error)  # as numpy fails
