"""Qt Linguist's ``.ts``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.asked import Asked
from mlkd.data.formats.base import Wanted
from mlkd.data.formats.names import language_of_name
from mlkd.data.formats.plurals import MANY, qt_form
from mlkd.data.formats.sentences import sentence_pair
from mlkd.data.formats.xml import Element, ancestors, child, children, units
from mlkd.data.rows import Pair, Reject

SUFFIXES = (".ts",)
NAMED = False
SAID = re.compile(r"""<TS\b[^>]*\blanguage\s*=\s*["']([\w@-]+)""")


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """The finished messages; of a message with a number, the form for many."""
    asked = Asked(wanted)
    for path in files:
        for message, place in units(path, {"message"}, {"context"}):
            source = next(iter(ancestors(message, "sourcelanguage")), None)
            said = next(iter(ancestors(message, "language")), None) or language_of_name(path)
            if asked.has(source, said):
                yield _message(message, said or wanted.target, place)
    asked.check()


def _message(message: Element, language: str, place: str) -> Pair | Reject:
    source, target = child(message, "source"), child(message, "translation")
    text = "" if source is None else _text(source)
    kind = "unfinished" if target is None else target.get("type", "")
    if kind in {"unfinished", "vanished", "obsolete"}:
        return Reject(kind, place, text)
    if message.get("numerus") == "yes":
        forms = list(children(target, "numerusform"))
        chosen = qt_form(language, len(forms), MANY)
        if chosen is None:
            return Reject("no plural rule", place, text)
        target = forms[chosen]
    translation = _text(target)
    if not translation.strip():
        return Reject("untranslated", place, text)
    if not text.strip():
        return Reject("symbolic id", place, message.get("id", ""))
    return sentence_pair(text, translation, place)


def _text(element: Element) -> str:
    """The text, the first of variants of different lengths, ``<byte>`` as its character."""
    variant = child(element, "lengthvariant")
    element = element if variant is None else variant
    parts = [element.text or ""]
    for item in element:
        parts += [_character(item.get("value", "")), item.tail or ""]
    return "".join(parts)


def _character(value: str) -> str:
    """``x9`` or ``9``: mostly a control character, which leaves white space or nothing."""
    try:
        code = int(value[1:], 16) if value[:1] == "x" else int(value)
    except ValueError:
        return ""
    return chr(code) if 0 < code < 0xD800 else ""
