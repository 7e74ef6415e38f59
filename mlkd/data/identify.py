"""Which language a text looks like, by py3langid: offline, 139 languages, 0.1 ms a sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

import langcodes

_LETTERS = 40
"""Letters that are judged at once; shorter sentences are put together until they have so many."""
_DENSE = 3
"""A letter of these scripts counts as so many."""
_PART_OF = {
    "ary": "ar", "arz": "ar", "ckb": "ku", "nn": "no", "sdh": "ku", "uzs": "uz", "wuu": "zh",
    "yue": "zh",
}  # fmt: skip
"""Macrolanguages (ISO 639-3) of what the identifier knows, where CLDR keeps them apart."""
_CLOSE = 10
"""Distance in CLDR's table up to which languages pass for each other: Norwegian and Bokmål (1),
Bosnian and Croatian (8), but not Spanish and Catalan (20) or Czech and Slovak (24)."""


@cache
def can_tell(code: str) -> bool:
    """Whether the identifier knows a language, or one that passes for it."""
    import py3langid

    return any(passes_for(label, code) for label, _ in py3langid.rank("some text"))


@cache
def passes_for(found: str, code: str) -> bool:
    """Whether text that looks like one language may well be labelled as another.

    Regions and scripts are not told apart, nor the members of a macrolanguage (Chinese, Arabic).
    """
    plain = langcodes.Language.get(code).language or code
    macro = [
        langcodes.standardize_tag(_PART_OF.get(tag, tag), macro=True) for tag in (found, plain)
    ]
    distance = min(langcodes.tag_distance(tag, found) for tag in (code, plain))
    return macro[0] == macro[1] or distance <= _CLOSE


def languages_of(texts: Iterable[str]) -> Counter[str]:
    """How many sentences look like each language; those without enough letters are left out."""
    import py3langid

    found, block, letters = Counter[str](), list[str](), 0
    for text in texts:
        block.append(text)
        letters += sum(_weight(char) for char in text)
        if letters >= _LETTERS:
            found[py3langid.classify(" ".join(block))[0]] += len(block)
            block, letters = [], 0
    return found


@cache
def _weight(char: str) -> int:
    """What a character counts as a letter: scripts without spaces say more with each."""
    return char.isalpha() * (_DENSE if char >= "\u2e80" else 1)
