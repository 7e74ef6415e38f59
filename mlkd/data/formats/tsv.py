"""Tab-separated values, a pair a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.cells import cells
from mlkd.data.rows import Pair, Reject, count_lines, domain_of, lines


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """The two columns of each line."""
    for place, found in rows(wanted, wanted.two_columns(files), files):
        if isinstance(found, Reject):
            yield found
        else:
            source, translation, *domain = found
            yield Pair(source, translation, place, domain_of(*domain))


def rows(
    wanted: Wanted, columns: list[str | int], files: list[Path]
) -> Iterator[tuple[str, list[str] | Reject]]:
    """Any columns of each line, and its domain if a column says it."""
    return cells(wanted, wanted.with_domain(columns), files[0], lines(files[0]))


def count(wanted: Wanted, files: list[Path]) -> int:
    """How many rows there are."""
    return count_lines(files[0]) - bool(wanted.corpus.header)
