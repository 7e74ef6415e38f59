"""Paths as users write them: ``~`` is the home folder, ``~name`` that of another user."""

from __future__ import annotations

import os
from os.path import expanduser
from pathlib import Path

from mlkd.output.errors import UserError

OUTPUTS = "outputs"
"""Where results go unless a place is given."""

PACKED = (".gz", ".bz2", ".xz")
"""Endings of packed files, which every format of files reads."""


def expanded(written: str) -> str:
    """The path with the home folder in it.

    Raises:
        ValueError: There is no such user.
    """
    found = expanduser(written)  # noqa: PTH111  # a path that is a text stays as it is
    if found.startswith("~"):
        raise ValueError(f"{written}: there is no such user; a name with a ~ is written ./~…")
    return found


def no_folder(written: str) -> str:
    """The path of a file to write.

    Raises:
        ValueError: It is that of a folder.
    """
    if Path(written).is_dir():
        raise ValueError(f"{written} is a folder; give a file")
    return written


def user_path(written: str | os.PathLike[str]) -> Path:
    """The same as a path.

    Raises:
        UserError: There is no such user.
    """
    try:
        return Path(expanded(os.fspath(written)))
    except ValueError as error:
        raise UserError(str(error)) from None


def unpacked_name(path: Path) -> Path:
    """The path without the ending of packed files: ``de.po`` of ``de.po.gz``."""
    return path.with_suffix("") if path.suffix in PACKED else path


def encoder_at(written: str | os.PathLike[str]) -> Path:
    """The folder of an encoder: that of a run's student, or the one that is given.

    Raises:
        UserError: There is no such user.
    """
    folder = user_path(written)
    return folder / "student" if (folder / "run.json").is_file() else folder
