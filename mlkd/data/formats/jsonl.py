"""JSON lines, an object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.rows import Pair, Reject, checked_pair, count_lines, in_domain, lines
from mlkd.output.errors import UserError


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """The two named values of each object."""
    columns = wanted.two_names(files)
    for place, line, value in _objects(files[0]):
        if isinstance(value, Reject):
            yield value
            continue
        item = pair_of(value, columns, place)
        yield item._replace(raw=line) if isinstance(item, Reject) else item


def rows(
    wanted: Wanted, columns: list[str | int], files: list[Path]
) -> Iterator[tuple[str, list[object] | Reject]]:
    """Any named values of each object, and that of the domain if a name says it.

    They are of whatever type; None where there is no such name.
    """
    names = [*wanted.names(columns), *map(str, wanted.with_domain([]))]
    for place, _, value in _objects(files[0]):
        if isinstance(value, Reject):
            yield place, value
        else:
            yield place, [_look_up(value, name) for name in names]


def _objects(path: Path) -> Iterator[tuple[str, str, object]]:
    """Place, line and value of each line; the value is a reject where it is no JSON."""
    for number, (place, line) in enumerate(lines(path)):
        if isinstance(line, Reject):
            yield place, "", line
            continue
        try:
            yield place, line, json.loads(line)
        except (ValueError, RecursionError):
            if number == 0 and re.match(r"\s*\[\s*(\{|$)", line):
                raise UserError(f"{place}: the file is an array; give format=json") from None
            yield place, line, Reject("invalid JSON", place, line)


def count(wanted: Wanted, files: list[Path]) -> int:
    """How many rows there are."""
    del wanted
    return count_lines(files[0])


def pair_of(value: object, columns: list[str], place: str) -> Pair | Reject:
    """The pair in an object, and its domain if a third name says it; dotted names reach into it."""
    source, translation, *domain = (_look_up(value, name) for name in columns)
    return in_domain(checked_pair(source, translation, place), *domain)


def _look_up(value: object, column: str) -> object:
    """The value under a name, or under the names of a dotted path."""
    if isinstance(value, dict) and column in value:
        return value[column]
    for name in column.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
