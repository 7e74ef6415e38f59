"""Apple's string catalogues, ``.xcstrings``: JSON with all languages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlkd.data.formats.asked import Asked
from mlkd.data.formats.base import Wanted
from mlkd.data.formats.codes import best
from mlkd.data.formats.sentences import sentence_pair
from mlkd.data.rows import Pair, Reject, content
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of

SUFFIXES = (".xcstrings",)
NAMED = None
_Unit = tuple[str, str]
"""State and text."""


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """The translated strings; of one with variations those that both languages have."""
    asked = Asked(wanted)
    for path in files:
        catalogue = _load(path)
        strings = {key: _dict(entry) for key, entry in _dict(catalogue.get("strings")).items()}
        source = str(catalogue.get("sourceLanguage") or wanted.source)
        codes = {code: None for entry in strings.values() for code in _localizations(entry)}
        codes.pop(source, None)
        target = best(codes, wanted.target)
        if asked.has(source, target or next(iter(codes), None)):
            for key, entry in strings.items():
                yield from _entry(key, entry, source, target or wanted.target, f"{path}:{key}")
        asked.note(*codes)
    asked.check()


def _load(path: Path) -> dict[str, Any]:
    try:
        catalogue = json.loads(content(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no readable JSON ({reason_of(error)})") from None
    if not isinstance(catalogue, dict) or "strings" not in catalogue:
        raise UserError(f"{path}: no string catalogue, it has no strings")
    return catalogue


def _entry(
    key: str, entry: dict[str, Any], source: str, target: str, place: str
) -> Iterator[Pair | Reject]:
    localizations = _localizations(entry)
    sources = _units(localizations.get(source)) or {"": ("", key)}
    targets = _units(localizations.get(target))
    if entry.get("shouldTranslate") is False:
        yield Reject("not translatable", place, key)
    elif entry.get("extractionState") == "stale":
        yield Reject("obsolete", place, key)
    elif not targets:
        yield Reject("untranslated", place, key)
    else:
        for variation, (_, text) in sources.items():
            # A key without forms of its own stands for many.
            default = targets.get(".plural.other", ("", "")) if variation == "" else ("", "")
            state, translation = targets.get(variation, default)
            if not translation.strip():
                yield Reject("untranslated", place, text)
            elif state != "translated":
                yield Reject("unfinished", place, text)
            else:
                yield sentence_pair(text, translation, place)


def _units(localization: object, name: str = "") -> dict[str, _Unit]:
    """Texts by variation, as ``plural.one``; ``""`` is that of a string without any."""
    node, found = _dict(localization), {}
    unit = _dict(node.get("stringUnit"))
    if isinstance(unit.get("value"), str):
        found[name] = (str(unit.get("state", "")), unit["value"])
    for kind, forms in _dict(node.get("variations")).items():
        for form, inner in _dict(forms).items():
            found |= _units(inner, f"{name}.{kind}.{form}")
    return found


def _localizations(entry: dict[str, Any]) -> dict[str, Any]:
    return _dict(entry.get("localizations"))


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
