"""Text without translation: a row's two sides are one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.cells import cells
from mlkd.data.rows import Pair, Reject, count_lines, domain_of, lines


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """A sentence a line, or a column of a tab-separated file."""
    columns = wanted.columns(files)
    if len(columns) != 1:
        raise wanted.refuse(f"{columns}; give one, the text", ".columns")
    for place, found in cells(wanted, wanted.with_domain(columns), files[0], lines(files[0])):
        if isinstance(found, Reject):
            yield found
        else:
            text, *domain = found
            yield Pair(text, text, place, domain_of(*domain))


def count(wanted: Wanted, files: list[Path]) -> int:
    """How many rows there are."""
    return count_lines(files[0]) - bool(wanted.corpus.header)
