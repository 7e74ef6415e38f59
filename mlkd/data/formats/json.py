"""A JSON array of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.jsonl import pair_of
from mlkd.data.rows import BROKEN, Pair, Reject, open_file
from mlkd.data.sniff import START, refuse_wide
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of

_CHUNK = 1 << 16
_MAX_ITEM = 1 << 20
"""Characters; a longer item says that the file is no array of pairs."""
_BETWEEN = re.compile(r"[\s,]*")


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """The two named values of each object, one after the other from the stream."""
    columns, path, number = wanted.two_names(files), files[0], 0
    try:
        with open_file(path) as file:
            refuse_wide(file.peek(START), path)
            for number, value in enumerate(_items(TextIOWrapper(file, "utf-8-sig")), 1):
                yield pair_of(value, columns, f"{path}:{number}")
    except (*BROKEN, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: no readable JSON array after item {number} ({reason_of(error)})"
        ) from None


def _items(file: TextIOWrapper) -> Iterator[object]:
    """The items of an array, without the rest of it in memory."""
    decode = json.JSONDecoder().raw_decode
    text = file.read(_CHUNK).lstrip()
    if not text.startswith("["):
        raise ValueError("it does not start with [")
    place, more = 1, True
    while True:
        place = _BETWEEN.match(text, place).end()  # type: ignore[union-attr]
        try:
            if text.startswith("]", place):
                return
            value, end = decode(text, place)
            if end == len(text) and more:  # a number may go on
                raise ValueError("the file ends within an item")
        except ValueError:
            if not more or len(text) - place > _MAX_ITEM:
                raise
            chunk = file.read(_CHUNK)
            text, place, more = text[place:] + chunk, 0, bool(chunk)
            continue
        yield value
        place = end
