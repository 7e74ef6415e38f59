"""Comma-separated values and their like, as pandas and spreadsheets write them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.cells import positions, refuse_header
from mlkd.data.rows import Pair, Reject, checked_pair, in_domain, lines
from mlkd.output.errors import UserError


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """The two columns of each record."""
    for place, found in rows(wanted, wanted.two_columns(files), files):
        if isinstance(found, Reject):
            yield found
        else:
            source, translation, *domain = found
            yield in_domain(checked_pair(source, translation, place), *domain)


def rows(
    wanted: Wanted, columns: list[str | int], files: list[Path]
) -> Iterator[tuple[str, list[str] | Reject]]:
    """Any columns of each record, and its domain if a column says it.

    Cells may hold delimiters, quotes and line ends.
    """
    path, delimiter = files[0], wanted.corpus.delimiter
    source = _Lines(path)
    records = csv.reader(source, delimiter=delimiter, strict=True)
    width = 0
    chosen: list[int] = []
    while True:
        source.start()
        try:
            found = next(records, None)
        except csv.Error as error:
            raise UserError(
                f"{source.place}: no CSV with delimiter {delimiter!r} ({error})"
            ) from None
        if found is None:
            return
        if source.bad is not None:
            yield source.place, source.bad
        elif not width:
            names = found if wanted.corpus.header else None
            chosen = positions(wanted, wanted.with_domain(columns), names, path)
            if max(chosen) >= len(found):
                raise wanted.refuse(
                    f"{path} has {len(found)} columns with delimiter {delimiter!r}", ".delimiter"
                )
            width = len(found)
            if names is None:
                texts = [found[c] for c in chosen]
                refuse_header(wanted, texts, source.place)
                yield source.place, texts
        elif len(found) != width:
            wrong = Reject("wrong column count", source.place, delimiter.join(found))
            yield source.place, wrong
        else:
            yield source.place, [found[c] for c in chosen]


class _Lines:
    """Lines for the parser, which remember where its record began and what was wrong in it."""

    def __init__(self, path: Path) -> None:
        self._rows = lines(path)
        self._new = True
        self.place = str(path)
        self.bad: Reject | None = None

    def start(self) -> None:
        """The next line begins a record."""
        self._new, self.bad = True, None

    def __iter__(self) -> Iterator[str]:
        for place, line in self._rows:
            if self._new:
                self.place, self._new = place, False
            if isinstance(line, Reject):
                self.bad = line
                raw = line.raw if isinstance(line.raw, bytes) else line.raw.encode()
                line = raw.decode(errors="replace").replace("\0", "")
            yield line.replace("\r", " ") + "\n"
