"""Apple's ``.strings`` of two languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.keyed import pairs_by_key
from mlkd.data.rows import Pair, Reject, content
from mlkd.output.errors import UserError

TWO_FILES = True
_STRING = r'"(?:[^"\\]|\\.)*"|[\w.$/:-]+'
_ITEM = re.compile(
    rf"\s+|/\*.*?\*/|//[^\n]*|(?P<key>{_STRING})\s*(?:=\s*(?P<value>{_STRING})\s*)?;", re.DOTALL
)
_ESCAPE = re.compile(r"\\(?:[Uu]([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "b": "", "f": "", "a": "", "v": ""}


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """Pairs by key."""
    return pairs_by_key(_messages(files[0]), _messages(files[1]), files[1])


def _messages(path: Path) -> dict[str, str]:
    """Messages of a file in UTF-8 or UTF-16; without a value the key is the text."""
    data = content(path)
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:6] in (b"bplist", b"<?xml ", b"<plist"):
        raise UserError(f'{path}: a property list; write it as text, "key" = "text";')
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise UserError(f"{path}: neither UTF-8 nor UTF-16") from None
    found, place = {}, 0
    while place < len(text):
        item = _ITEM.match(text, place)
        if item is None:
            line = text.count("\n", 0, place) + 1
            raise UserError(f'{path}:{line}: no message; expected "key" = "text";')
        if item["key"] is not None:
            key = _unescaped(item["key"])
            found[key] = key if item["value"] is None else _unescaped(item["value"])
        place = item.end()
    return found


def _unescaped(string: str) -> str:
    """The text of a string, quoted or bare."""
    bare = string[1:-1] if string.startswith('"') else string
    text = _ESCAPE.sub(
        lambda match: chr(int(match[1], 16)) if match[1] else _CONTROLS.get(match[2], match[2]),
        bare,
    )
    # Characters beyond the first 65,536 are written as two escapes.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
