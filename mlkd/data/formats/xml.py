"""Units of XML files, one by one, and the sentence in a segment with inline elements.

Files are parsed without the network, external entities or DTDs; what a unit needs is in memory
while it is read, however large the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lxml import etree

from mlkd.data.formats.markup import GAP, close_gaps
from mlkd.data.rows import BROKEN, open_file
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of

Element = Any
"""An element of lxml, whose classes have no public types."""
LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_CHUNK = 1 << 16
_CONTROLS = bytes({*range(32)} - set(b"\t\n\r"))
"""Characters that XML does not allow, but that real files have."""
_NATIVE = {"bpt", "ept", "ph", "it", "ut", "x", "bx", "ex", "sc", "ec"}
"""Inline elements of TMX and XLIFF that hold or stand for code of the original."""
_NOTHING = {"sub", "sm", "em", "cp"}
"""Inline elements that leave no trace: text of another sentence, marks without width."""


def units(path: Path, names: set[str], containers: set[str]) -> Iterator[tuple[Element, str]]:
    """Elements of some names with their places, each gone from memory when the next is asked for.

    Args:
        path: An XML file, plain or packed.
        names: Local names of the elements to yield.
        containers: Local names of elements around them, dropped at their end.

    Raises:
        UserError: The file is no XML.
    """
    tags = [f"{{*}}{name}" for name in sorted(names | containers)]
    parser = etree.XMLPullParser(
        ("end",), tag=tags, resolve_entities="internal", no_network=True, load_dtd=False
    )
    wide = False
    try:
        with open_file(path) as file:
            while chunk := file.read(_CHUNK):
                wide = wide or (b"\0" in chunk[:4])  # UTF-16
                parser.feed(chunk if wide else chunk.translate(None, _CONTROLS))
                yield from _ended(parser, path, names)
            parser.close()
            yield from _ended(parser, path, names)
    except (etree.XMLSyntaxError, *BROKEN) as error:
        raise UserError(f"{path}: no readable XML ({reason_of(error)})") from None


def _ended(parser: Element, path: Path, names: set[str]) -> Iterator[tuple[Element, str]]:
    for _, element in parser.read_events():
        if local_name(element) in names:
            yield element, f"{path}:{element.sourceline}"
        element.clear(keep_tail=False)
        parent = element.getparent()
        while parent is not None and element.getprevious() is not None:
            del parent[0]


def local_name(element: Element) -> str:
    """The name of an element without its namespace; empty for comments and the like."""
    return etree.QName(element).localname if isinstance(element.tag, str) else ""


def child(element: Element, name: str) -> Element | None:
    """The first child with a local name."""
    return next(children(element, name), None)


def children(element: Element, name: str) -> Iterator[Element]:
    """The children with a local name."""
    return (item for item in element if local_name(item) == name)


def ancestors(element: Element, attribute: str) -> list[str]:
    """Values of an attribute at an element and those around it, the nearest first."""
    around = [element, *element.iterancestors()]
    return [value for item in around if (value := item.get(attribute)) is not None]


def sentence(segment: Element) -> str:
    """The text of a segment: native code away, formatted text kept."""
    return close_gaps(_text(segment))


def _text(element: Element) -> str:
    parts = [element.text or ""]
    for item in element:
        name = local_name(item)
        if name in _NATIVE:
            parts.append(GAP)
        elif name and name not in _NOTHING:
            parts.append(_text(item) or GAP)
        parts.append(item.tail or "")
    return "".join(parts)
