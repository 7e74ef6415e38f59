"""Hashes of files and writing that is never seen half done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def digest(value: Any, length: int = 16) -> str:
    """Hash of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encoder_fingerprint(folder: Path) -> str:
    """Hash of what decides an encoder folder's vectors: weights, configs, tokenizer."""
    names = sorted(
        p
        for pattern in ("*.safetensors", "*.json", "*/config.json", "*/*.safetensors", "*.txt")
        for p in folder.glob(pattern)
        if p.name not in {"config_sentence_transformers.json", "evaluation.json"}
    )
    return digest([(str(p.relative_to(folder)), file_sha256(p)) for p in names], length=32)


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside the target and rename, so that readers see the old or the new file."""
    with replacing(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file path; on success it is flushed to disk and takes the target's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder; on success it takes the target's name.

    If another process has put the target there in the meantime, theirs stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
