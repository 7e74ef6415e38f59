"""Translation jobs, XLIFF 1.x and 2.x."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.asked import Asked
from mlkd.data.formats.base import Wanted
from mlkd.data.formats.names import language_of_name
from mlkd.data.formats.sentences import sentence_pair
from mlkd.data.formats.xml import LANG, Element, ancestors, child, children, sentence, units
from mlkd.data.rows import Pair, Reject

SUFFIXES = (".xlf", ".xliff", ".sdlxliff", ".mxliff", ".mqxliff")
NAMED = False
SAID = re.compile(r"""\b(?:target-language|trgLang)\s*=\s*["']([\w@-]+)""")
_FINISHED = {"final", "translated", "signed-off", "reviewed"}
_SDL = "{http://sdl.com/FileTypes/SdlXliff/1.0}"
_SDL_FINISHED = {"Translated", "ApprovedTranslation", "ApprovedSignOff"}


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """The finished segments, one pair each."""
    asked = Asked(wanted)
    for path in files:
        for unit, place in units(path, {"trans-unit", "unit"}, {"group", "file"}):
            is_first = child(unit, "source") is not None
            language = _target_language(unit, path)
            if asked.has(_source_language(unit), language):
                yield from _version_1(unit, place) if is_first else _version_2(unit, place)
    asked.check()


def _source_language(unit: Element) -> str | None:
    return next(iter(ancestors(unit, "source-language") + ancestors(unit, "srcLang")), None)


def _target_language(unit: Element, path: Path) -> str | None:
    target = child(unit, "target")
    said = [] if target is None else [target.get(LANG)]
    said += ancestors(unit, "target-language") + ancestors(unit, "trgLang")
    return next(filter(None, said), None) or language_of_name(path)


def _version_1(unit: Element, place: str) -> Iterator[Pair | Reject]:
    source, target = child(unit, "source"), child(unit, "target")
    if "no" in ancestors(unit, "translate")[:1]:
        yield Reject("not translatable", place, "")
        return
    if target is None:
        yield Reject("untranslated", place, sentence(source))
        return
    state = target.get("state", "").lower()
    approved = unit.get("approved")
    finished = state in _FINISHED or (approved == "yes" and not state)
    unfinished = state == "new" or state.startswith("needs-") or approved == "no"
    whole = child(unit, "seg-source")
    segments = {} if whole is None else _segments(whole)
    translations = _segments(target) if segments else {}
    if not translations:
        yield _pair(sentence(source), sentence(target), finished, unfinished, place)
        return
    states = {
        item.get("id"): item.get("conf", "") in _SDL_FINISHED for item in unit.iter(f"{_SDL}seg")
    }
    for mid, segment in segments.items():
        done = states.get(mid)
        yield _pair(
            segment,
            translations.get(mid, ""),
            finished if done is None else done,
            unfinished or done is False,
            place,
        )


def _segments(element: Element) -> dict[str, str]:
    """Sentences by the ``mid`` of their ``<mrk>``."""
    return {
        item.get("mid"): sentence(item)
        for item in element.iter(f"{{*}}{'mrk'}")
        if item.get("mtype") == "seg" and item.get("mid") is not None
    }


def _version_2(unit: Element, place: str) -> Iterator[Pair | Reject]:
    if "no" in ancestors(unit, "translate")[:1]:
        yield Reject("not translatable", place, "")
        return
    for segment in children(unit, "segment"):
        source, target = child(segment, "source"), child(segment, "target")
        one, two = ("" if side is None else sentence(side) for side in (source, target))
        state = segment.get("state", "").lower()
        yield _pair(one, two, state in _FINISHED, state == "initial", place)


def _pair(source: str, target: str, finished: bool, unfinished: bool, place: str) -> Pair | Reject:
    if not target.strip():
        return Reject("untranslated", place, source)
    if unfinished:
        return Reject("unfinished", place, source)
    if not finished and source.split() == target.split():
        return Reject("untranslated", place, source)
    return sentence_pair(source, target, place)
