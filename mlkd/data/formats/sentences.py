"""What stands in a catalogue beside the sentence: keyboard marks, markup, credits, symbolic ids.

One rule for all of translators' formats. Placeholders (``%s``, ``{0}``, ``{ $name }``) that stand
in the text stay there; inline elements that a format itself marks as native code do not.
"""

from __future__ import annotations

import re

from mlkd.data.cleaning import has_letters
from mlkd.data.formats.markup import ENTITY, without_markup
from mlkd.data.rows import Pair, Reject, checked_pair

_MARKS = {
    "&": re.compile(rf"(?!{ENTITY})(?<!&)&(?=[^\W_])(?!\w+=)"),
    "_": re.compile(r"(?<!_)_(?=[^\W\d_])"),
}
_MOST = 3
"""A text with more such signs is no label."""
_ASIDE = {sign: re.compile(rf"(?<!\s)\s*[(（]{sign}[^\W_][)）]") for sign in "&_~"}
"""As Chinese and Japanese have it: ``文件(&F)``."""
_CAPITAL_ASIDE = {sign: re.compile(rf"(?<!\s)\s*[(（]{sign}[A-Z0-9][)）]") for sign in "&_"}
"""Behind letters of these scripts it is one on both sides; ``foo(&x)`` is a call of a function."""
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_WORD = re.compile(r"[\w&]+")
_TILDE = re.compile(r"(?<![~/.\d])~(?=[^\W\d_])(?!\w+/)")
"""What may be a mark of LibreOffice, and no address, number or folder of a user."""
_AT_START = re.compile(r"(?<!\w)~")

_LONG = 5000
"""Characters of what is no sentence anyway."""
_CREDITS = {
    "translator-credits", "translator_credits", "translators-credits", "translator credits",
    "name of translators", "names of translators", "email of translators",
    "emails of translators", "your names", "your emails", "your name", "your email",
    "roles_of_translators", "credit_for_translators", "translated by", "translation credits",
    "translator", "translators", "translation by",
}  # fmt: skip
_MAIL = re.compile(r"[\w.+-]{1,64}(?:@|\s?\(at\)\s?|\s?\[at\]\s?)[\w-]+(?:\.[\w-]+)+")
_SENTENCE = 3
"""Words in small letters that names do not have: Erika von der Heide has two."""
_CONTEXT = re.compile(r"^_: ?[^\n]*\n")
_ID = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:(?:[._:]|::)[A-Za-z0-9-]+)+")
_NO_ID = re.compile(
    r"(?:^www)|\.(?:c|cfg|com|conf|css|csv|de|exe|h|html?|ini|io|jpe?g|js|json|md|net|org|pdf|php|"
    r"png|po|py|svg|tar|txt|xml|ya?ml|zip)$",
    re.IGNORECASE,
)
_IN_CODE = re.compile(r"(?:^|[._:-])[a-z]|[a-z][A-Z]|::|_")
_SELECTOR = re.compile(r"\{\s*[\w.]+\s*,\s*(?:plural|select|selectordinal|choice)\s*,")


def sentence_pair(source: object, target: object, place: str) -> Pair | Reject:
    """A pair of two messages of a catalogue without what is no sentence, or why it is none."""
    pair = checked_pair(source, target, place)
    if isinstance(pair, Reject):
        return pair
    if max(len(pair.source), len(pair.target)) > _LONG:
        return pair
    one, two = _CONTEXT.sub("", pair.source, count=1), pair.target
    if _is_credits(one.strip().lower()) or _is_signed(one, two):
        return Reject("translators' credits", place, "")
    if _SELECTOR.search(one) or _SELECTOR.search(two):
        return Reject("selectors", place, one)
    one, two = without_marks(one, two)
    if is_symbolic(one):
        return Reject("symbolic id", place, one)
    found = Pair(without_markup(one), without_markup(two), place)
    if _has_no_words(found.source.strip(), found.target.strip()):
        return Reject("no words", place, one)
    return found


def _has_no_words(source: str, target: str) -> bool:
    """Whether they are signs and placeholders, or letters of keys.

    A text that is empty or all question marks is damaged, which cleaning counts as a bad row.
    """
    if len(source) == len(target) == 1:
        return True
    damaged = not source or set(source) <= {"?", " "}
    return not has_letters(source) and not (damaged and has_letters(target))


def without_marks(source: str, target: str) -> tuple[str, str]:
    """Both sides without the marks of keyboard shortcuts: ``_Open``, ``&File``, ``打开(_O)``.

    A mark stands at the start of a word, or in a word that the other side writes otherwise;
    ``snake_case``, ``R&D`` and ``&amp;`` have none. ``&&`` is ``&``. A tilde (``~File``, as
    LibreOffice has it) is a mark where both sides have one.
    """
    source, target = _without_tildes(source, target)
    for sign, pattern in _MARKS.items():
        if sign not in source and sign not in target:
            continue
        source, target = (
            _without_mark(source, target, sign, pattern),
            _without_mark(target, source, sign, pattern),
        )
    return source.replace("&&", "&"), target.replace("&&", "&")


def _without_tildes(source: str, target: str) -> tuple[str, str]:
    """A mark is the one tilde of each side, on one side at the start of a word; others stay."""
    sides = source, target
    words = [{word for word in side.split() if "~" in word} for side in sides]
    marked = all(side.count("~") == 1 and _TILDE.search(side) for side in sides)
    if not marked or not any(map(_AT_START.search, sides)) or words[0] == words[1]:
        return sides
    one, two = (_ASIDE["~"].sub("", side).replace("~", "") for side in sides)
    return one, two


def _without_mark(text: str, other: str, sign: str, pattern: re.Pattern[str]) -> str:
    other_marked = pattern.search(other) is not None
    aside, capital = _ASIDE[sign], _CAPITAL_ASIDE[sign]
    if capital.search(text) and any(
        (match := capital.search(side)) and _CJK.search(side, 0, match.start())
        for side in (text, other)
    ):
        return capital.sub("", text)
    if other_marked and aside.search(text) and not aside.search(other):
        return aside.sub("", text)
    found = list(pattern.finditer(text))
    if len(found) > _MOST or (sign == "_" and text.count("_") != 1):
        return text
    for match in reversed(found):
        if _is_mark(text, match.start(), other, other_marked):
            text = text[: match.start()] + text[match.end() :]
    return text


def _is_mark(text: str, at: int, other: str, other_marked: bool) -> bool:
    before = text[:at][-2:]
    if not before[-1:].isalnum():
        return not (before.endswith("(") and before[0].isalnum())  # foo(&x)
    word = next(match[0] for match in _WORD.finditer(text) if at < match.end())
    if word.isupper() or any(char.isdigit() for char in word) or word in _WORD.findall(other):
        return False
    if before.isalnum() and before.islower() and text[at + 1].isupper():
        return False  # Copy&Paste
    return other_marked or (text[at] == "&" and len(word) > 3 and text[at + 1].islower())


def _is_credits(source: str) -> bool:
    source = source.rstrip(": ")
    return source in _CREDITS or source.endswith(("-translator-credits", " translator credits"))


def _is_signed(source: str, target: str) -> bool:
    """Whether a translation brings an address along, and is no sentence that names one."""
    if not _has_mail(target) or _has_mail(source):
        return False
    words = re.findall(r"[^\W\d_]+", _MAIL.sub("", target))
    return len([word for word in words if word[0].islower()]) < _SENTENCE


def _has_mail(text: str) -> bool:
    hint = "@" in text or "at)" in text or "at]" in text
    return hint and _MAIL.search(text) is not None


def is_symbolic(source: str) -> bool:
    """Whether a source is the name of a message rather than a message: ``app.title``."""
    text = source.strip()
    is_id = bool(_ID.fullmatch(text)) and not _NO_ID.search(text)
    words = all(len(part) > 3 and part.isalpha() for part in text.split("."))
    return is_id and (words or _IN_CODE.search(text) is not None)  # Dr.Who and U.S. are none
