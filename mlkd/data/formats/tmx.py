"""Translation memories, TMX 1.1 to 1.4."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.asked import Asked
from mlkd.data.formats.base import Wanted
from mlkd.data.formats.codes import best
from mlkd.data.formats.sentences import sentence_pair
from mlkd.data.formats.xml import LANG, Element, child, children, sentence, units
from mlkd.data.rows import Pair, Reject

SUFFIXES = (".tmx",)
NAMED = None


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """One pair a unit that has both languages, in whatever order it has them."""
    asked = Asked(wanted)
    for path in files:
        for unit, place in units(path, {"tu"}, set()):
            variants: dict[str, Element] = {}
            for variant in children(unit, "tuv"):
                # Up to 1.3 the attribute is a plain one.
                variants.setdefault(variant.get(LANG) or variant.get("lang") or "", variant)
            source = best(variants, wanted.source)
            target = best([code for code in variants if code != source], wanted.target)
            if source is None or target is None:
                asked.note(*variants)
                yield Reject("untranslated", place, "")
                continue
            asked.found()
            segments = [child(variants[code], "seg") for code in (source, target)]
            one, two = ("" if segment is None else sentence(segment) for segment in segments)
            if one and two:
                yield sentence_pair(one, two, place)
            else:
                yield Reject("untranslated", place, one)
    asked.check()
