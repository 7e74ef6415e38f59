"""Two files whose line i is the same item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.cells import Line, cells
from mlkd.data.rows import Pair, Reject, count_lines, lines

TWO_FILES = True


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """Each chosen column of both files gives a pair a line."""
    columns = wanted.columns(files)
    if not columns:
        raise wanted.refuse("empty; give the text columns of both files", ".columns")
    return zipped(wanted, columns, [(path, lines(path)) for path in files[:2]])


def count(wanted: Wanted, files: list[Path]) -> int:
    """How many rows there are."""
    columns = len(wanted.columns(files))
    return columns * (count_lines(files[0]) - bool(wanted.corpus.header))


def zipped(
    wanted: Wanted, columns: list[str | int], files: list[tuple[Path, Iterable[Line]]]
) -> Iterator[Pair | Reject]:
    """Pairs of two streams of lines.

    Raises:
        UserError: One has more lines than the other.
    """
    sides = [cells(wanted, columns, path, rows) for path, rows in files]
    for number, (left, right) in enumerate(zip_longest(*sides)):
        if left is None or right is None:
            rest = 1 + sum(1 for _ in sides[left is None])
            counts = (number, number + rest) if left is None else (number + rest, number)
            raise wanted.refuse(
                f"{files[0][0]} has {counts[0]} rows, {files[1][0]} {counts[1]}; "
                "row i must be the same item in both"
            )
        bad = [found for _, found in (left, right) if isinstance(found, Reject)]
        if bad:
            yield bad[0]
            continue
        for source, translation in zip(left[1], right[1], strict=True):
            yield Pair(source, translation, left[0])
