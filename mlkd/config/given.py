"""What callers from Python give, as sections of a configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sections(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with paths as texts, and a teacher by its option, folder or name on the hub."""
    found = {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in given.items()}
    teacher = found.get("teacher")
    if isinstance(teacher, str) and Path(teacher).expanduser().is_dir():
        found["teacher"] = {"path": teacher}
    elif isinstance(teacher, str) and "@" in teacher:
        name, revision = teacher.rsplit("@", 1)
        found["teacher"] = {"name": name, "revision": revision}
    return found
