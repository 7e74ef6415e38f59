"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.tables import table_pairs
from mlkd.data.rows import Pair, Reject


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """The two named columns."""
    return table_pairs(wanted, wanted.two_names(files), files)


def find(wanted: Wanted, root: str | None, allow_download: bool) -> list[Path]:
    """One file, or those of a folder."""
    del allow_download
    path = wanted.place(wanted.corpus.path, root)
    if path.is_dir():
        return wanted.some(sorted(path.glob("*.parquet")), f"{path}/*.parquet")
    return [wanted.file(wanted.corpus.path, root)]
