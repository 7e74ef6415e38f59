"""Moses files in a zip, as OPUS has them: ``x.de-en.de`` and ``x.de-en.en``."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from mlkd.data.formats.aligned import zipped
from mlkd.data.formats.base import Wanted
from mlkd.data.formats.codes import best
from mlkd.data.rows import Pair, Reject, lines_of
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """A pair a line of the two members."""
    path = files[0]
    try:
        with zipfile.ZipFile(path) as archive:
            names = _members(wanted, path, archive.namelist())
            opened = [archive.open(name) for name in names]
            places = [path / name for name in names]
            rows = [lines_of(file, place) for file, place in zip(opened, places, strict=True)]
            yield from zipped(wanted, [0], list(zip(places, rows, strict=True)))
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: no readable zip ({reason_of(error)})") from None


def _members(wanted: Wanted, path: Path, names: list[str]) -> list[str]:
    """The members of both languages that differ in their ending alone."""
    sets: dict[str, dict[str, str]] = {}
    for name in names:
        stem, _, ending = name.rpartition(".")
        sets.setdefault(stem, {})[ending] = name
    for endings in sets.values():
        codes = wanted.corpus.codes
        found = [
            codes.get(language) if codes.get(language) in endings else best(endings, language)
            for language in (wanted.source, wanted.target)
        ]
        if None not in found:
            return [endings[cast(str, code)] for code in found]
    raise wanted.refuse(
        f"no files of {wanted.source} and {wanted.target} in {path}; it has {', '.join(names[:9])}"
    )
