"""Whether text is in the language of its label, by py3langid: 139 languages, offline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

import langcodes

from mlkd.data.cleaning import without_placeholders

_LETTERS = 40
"""Letters that are judged at once; shorter sentences are put together until they have so many."""
_DENSE = 3
"""A letter of these scripts counts as so many."""
_MARGIN = 20.0
"""How much more likely (in nats) another language must be. Of sentences in a related language
95 % or more are found so, of sentences in the language itself next to none are accused."""
_PART_OF = {
    "ary": "ar", "arz": "ar", "ckb": "ku", "nb": "no", "nn": "no", "sdh": "ku", "uzs": "uz",
    "wuu": "zh", "yue": "zh",
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


def other_languages(texts: Iterable[str], code: str) -> tuple[int, Counter[str]]:
    """Sentences that look like another language than their label says.

    Short sentences are judged together; what is left over without enough letters is left out.

    Args:
        texts: The sentences.
        code: Their label, which :func:`can_tell` knows.

    Returns:
        How many sentences were judged, and how many of them look like each other language.
    """
    import py3langid

    judged, others, block, letters = 0, Counter[str](), list[str](), 0
    for text in map(without_placeholders, texts):
        block.append(text)
        letters += sum(_weight(char) for char in text)
        if letters >= _LETTERS:
            ranked = py3langid.rank(" ".join(block))
            own = next(score for language, score in ranked if passes_for(language, code))
            judged += len(block)
            if ranked[0][1] - own > _MARGIN:
                others[ranked[0][0]] += len(block)
            block, letters = [], 0
    return judged, others


@cache
def _weight(char: str) -> int:
    """What a character counts as a letter: scripts without spaces say more with each."""
    return char.isalpha() * (_DENSE if char >= "\u2e80" else 1)
