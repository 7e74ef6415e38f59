"""Turkish suffixes: vowel harmony, buffer letters and softened stems."""

from __future__ import annotations

import re
from functools import cache

VOWELS = "aeıioöuü"
VOICELESS = "fçhkpsşt"
LOW = dict(zip(VOWELS, "aeaeaeae", strict=True))
HIGH = dict(zip(VOWELS, "ıiıiuüuü", strict=True))
FRONTED = {"a": "e", "o": "ö", "u": "ü"}
POSSESSORS = {"my": "(I)m", "your": "(I)nIz", "our": "(I)mIz", "his": "(s)I"}
CASES = {
    "acc": "(y)I",
    "dat": "(y)A",
    "loc": "DA",
    "abl": "DAn",
    "gen": "(n)In",
    "ins": "(y)lA",
}
CASES_AFTER_HIS = {
    "acc": "nI",
    "dat": "nA",
    "loc": "nDA",
    "abl": "nDAn",
    "gen": "nIn",
    "ins": "(y)lA",
}


@cache
def attach(stem: str, pattern: str) -> str:
    """Attach suffixes to a stem.

    Args:
        stem: the word; ``kitap/kitab`` adds the stem before vowels, ``saat^`` marks a stem
            that takes front vowels though its last vowel is a back one.
        pattern: the suffixes in order; ``A`` (a, e), ``I`` (ı, i, u, ü) and ``D`` (d, t)
            follow the stem, ``(y)`` stands only after a vowel and ``(I)`` only after a
            consonant.
    """
    irregular = stem.endswith("^")
    word, _, soft = stem.removesuffix("^").partition("/")
    last = next(letter for letter in reversed(word) if letter in VOWELS)
    if irregular:
        last = FRONTED[last]
    bare = True
    for optional, plain in re.findall(r"\((.)\)|(.)", pattern):
        sign = optional or plain
        if optional and (sign == "I") == (word[-1] in VOWELS):
            continue
        if sign == "A":
            sign = LOW[last]
        elif sign == "I":
            if bare and soft:
                last = next(letter for letter in reversed(soft) if letter in VOWELS)
            sign = HIGH[last]
        elif sign == "D":
            sign = "t" if word[-1] in VOICELESS else "d"
        if bare and soft and sign in VOWELS:
            word = word[: word.rfind(" ") + 1] + soft
        bare = False
        word += sign
        if sign in VOWELS:
            last = sign
    return word


def decline(noun: str, form: tuple[str, ...]) -> str:
    """Decline a noun.

    Args:
        noun: a stem as in :func:`attach`; a trailing ``+`` marks a compound such as
            ``kredi kart+``, whose head carries the third person possessive.
        form: any of ``pl``, one possessor, one case and one particle, ``mI`` or ``dA``.
    """
    compound = noun.endswith("+")
    possessor = next((sign for sign in form if sign in POSSESSORS), "his" if compound else "")
    case = next((sign for sign in form if sign in CASES), "")
    cases = CASES_AFTER_HIS if possessor == "his" else CASES
    plural = "lAr" if "pl" in form else ""
    particle = " mI" if "mI" in form else " dA" if "dA" in form else ""
    pattern = plural + POSSESSORS.get(possessor, "") + cases.get(case, "") + particle
    return attach(noun.removesuffix("+"), pattern)
