"""Java ``.properties`` of two languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.keyed import pairs_by_key
from mlkd.data.rows import Pair, Reject, content
from mlkd.data.sniff import refuse_wide
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of

TWO_FILES = True
_ARGUMENT = re.compile(r"\{\d+[,}]")


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """Pairs by key."""
    return pairs_by_key(_messages(files[0]), _messages(files[1]), files[1])


def _messages(path: Path) -> dict[str, str]:
    from translate.storage.properties import propfile

    data = content(path)
    refuse_wide(data, path)
    try:
        data.decode()
        kind = "java-utf8"
    except UnicodeDecodeError:
        kind = "java"  # ISO 8859-1, as it was until Java 9
    store = propfile(personality=kind)
    try:
        store.parse(data)
    except Exception as error:  # whatever the library trips over
        raise UserError(f"{path}: no readable properties ({reason_of(error)})") from None
    return {str(unit.getid()): _text(str(unit.source)) for unit in store.units if unit.name}


def _text(value: str) -> str:
    """In a message with arguments ``''`` is an apostrophe."""
    return value.replace("''", "'") if _ARGUMENT.search(value) else value
