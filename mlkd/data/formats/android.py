"""Android's ``strings.xml`` of two languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.keyed import pairs_by_key
from mlkd.data.formats.xml import Element, children, local_name, units
from mlkd.data.rows import Pair, Reject

TWO_FILES = True
_REFERENCE = re.compile(r"@[*+]?(?:[\w.]+:)?string/")
"""To another message, of the app or of Android."""


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """Pairs by name, plurals by quantity, arrays by index."""
    source, fixed = _messages(files[0])
    target, also = _messages(files[1])
    for key in dict.fromkeys([*fixed, *also]):  # a name may stand there several times
        yield Reject("not translatable", f"{files[0]}:{key}", source.pop(key, ""))
        target.pop(key, None)
    yield from pairs_by_key(source, target, files[1])


def _messages(path: Path) -> tuple[dict[str, str], list[str]]:
    """Texts by name, and the names of those that are not to be translated."""
    found: dict[str, str] = {}
    fixed = []
    names = {"string", "string-array", "plurals"}
    for element, _ in units(path, names, set()):
        for key, item in _items(element):
            found[key] = _text(item)
            if element.get("translatable") == "false" or _REFERENCE.match(found[key]):
                fixed.append(key)
    return found, fixed


def _items(element: Element) -> Iterator[tuple[str, Element]]:
    name = element.get("name", "")
    if local_name(element) == "string":
        yield name, element
    for number, item in enumerate(children(element, "item")):
        yield f"{name}[{item.get('quantity', number)}]", item


def _text(element: Element) -> str:
    """The text with its tags, for they may be escaped as well; escapes are undone."""
    from translate.storage.aresource import AndroidResourceUnit

    text = AndroidResourceUnit("x").get_xml_text_value(element)
    return str(text or "")
