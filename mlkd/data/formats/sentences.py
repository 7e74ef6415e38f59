"""What stands in a catalogue beside the sentence: keyboard marks, markup, credits, symbolic ids.

One rule for all of translators' formats. Placeholders (``%s``, ``{0}``, ``{ $name }``) that stand
in the text stay there; inline elements that a format itself marks as native code do not.
"""

from __future__ import annotations

import html
import re

from mlkd.data.rows import Pair, Reject, checked

GAP = "\0"
"""Stands for an inline element that left no text; :func:`close_gaps` makes white space of it."""

# Scripts that are written without spaces: Thai to Myanmar, Khmer, CJK.
_NO_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
    "\U00020000-\U0003ffff]"
)
_ENDS = ".!?:;,…)”»"

_NAME = r"[A-Za-z][\w:.-]*"
_TAG = re.compile(
    rf"<!--.*?-->|<(?P<close>/)?(?P<name>{_NAME})"
    r"(?P<attributes>(?:\s+[\w:.-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*)\s*(?P<empty>/)?>",
    re.DOTALL,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_BLOCKS = set(
    "p br hr li ul ol dl dt dd div table tr td th h1 h2 h3 h4 h5 h6 img para title listitem "
    "itemizedlist orderedlist simplelist member entry row note tip warning important".split()
)
_VOID = {"br", "hr", "img", "p", "li"}

_MARKS = {
    "&": re.compile(rf"(?!{_ENTITY.pattern})(?<!&)&(?=[^\W_])(?!\w+=)"),
    "_": re.compile(r"(?<!_)_(?=[^\W\d_])"),
}
_ASIDE = {sign: re.compile(rf"\s*[(（]{sign}\w[)）]") for sign in _MARKS}
"""As Chinese and Japanese have it: ``文件(&F)``."""
_WORD = re.compile(r"[\w&]+")

_CREDITS = {
    "translator-credits", "translator_credits", "translators-credits", "translator credits",
    "name of translators", "names of translators", "email of translators",
    "emails of translators", "your names", "your emails", "your name", "your email",
    "roles_of_translators", "credit_for_translators",
}  # fmt: skip
_MAIL = re.compile(r"[\w.+-]+(?:@|\s?\(at\)\s?|\s?\[at\]\s?)[\w-]+(?:\.[\w-]+)+")
_CONTEXT = re.compile(r"^_: ?[^\n]*\n")
_ID = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:(?:[._:]|::)[A-Za-z0-9-]+)+")
_NO_ID = re.compile(
    r"(?:^www)|\.(?:c|cfg|com|conf|css|csv|de|exe|h|html?|ini|io|jpe?g|js|json|md|net|org|pdf|php|"
    r"png|po|py|svg|tar|txt|xml|ya?ml|zip)$",
    re.IGNORECASE,
)
_SELECTOR = re.compile(r"\{\s*[\w.]+\s*,\s*(?:plural|select|selectordinal|choice)\s*,")


def sentence_pair(source: object, target: object, place: str) -> Pair | Reject:
    """A pair of two messages of a catalogue without what is no sentence, or why it is none."""
    pair = checked(source, target, place)
    if isinstance(pair, Reject):
        return pair
    one, two = _CONTEXT.sub("", pair.source, count=1), pair.target
    if one.strip().lower() in _CREDITS or (_MAIL.search(two) and not _MAIL.search(one)):
        return Reject("translators' credits", place, "")
    if _SELECTOR.search(one) or _SELECTOR.search(two):
        return Reject("selectors", place, one)
    one, two = without_marks(one, two)
    if is_symbolic(one):
        return Reject("symbolic id", place, one)
    return Pair(without_markup(one), without_markup(two), place)


def without_marks(source: str, target: str) -> tuple[str, str]:
    """Both sides without the marks of keyboard shortcuts: ``_Open``, ``&File``, ``打开(_O)``.

    A mark stands at the start of a word, or in a word that the other side, marked too, writes
    otherwise; ``snake_case``, ``R&D`` and ``&amp;`` have none. ``&&`` is ``&``.
    """
    for sign, pattern in _MARKS.items():
        source, target = (
            _without_mark(source, target, sign, pattern),
            _without_mark(target, source, sign, pattern),
        )
    return source.replace("&&", "&"), target.replace("&&", "&")


def _without_mark(text: str, other: str, sign: str, pattern: re.Pattern[str]) -> str:
    other_marked = pattern.search(other) is not None
    aside = _ASIDE[sign]
    if other_marked and aside.search(text) and not aside.search(other):
        return aside.sub("", text)
    found = list(pattern.finditer(text))
    if sign == "_" and text.count("_") != 1:
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
    if not other_marked or word.isupper() or any(char.isdigit() for char in word):
        return False
    return word not in _WORD.findall(other)


def is_symbolic(source: str) -> bool:
    """Whether a source is the name of a message rather than a message: ``app.title``."""
    text = source.strip()
    return bool(_ID.fullmatch(text)) and not _NO_ID.search(text)


def without_markup(text: str) -> str:
    """The text without tags and with entities decoded.

    ``<file>`` in ``open <file>`` is no tag: a tag is closed, closes itself, has attributes, or is
    one of those that HTML leaves open.
    """
    if "<" in text:
        names = [(m["name"], bool(m["close"])) for m in _TAG.finditer(text) if m["name"]]
        closed = {name for name, close in names if close} & {n for n, close in names if not close}
        text = close_gaps(_TAG.sub(lambda match: _instead(match, closed), text))
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text) if "&" in text else text


def _instead(match: re.Match[str], closed: set[str]) -> str:
    name = match["name"]
    if name is None:
        return GAP
    tag = name.lower()
    is_tag = name in closed or match["empty"] or match["attributes"] or tag in _VOID
    if not is_tag:
        return match[0]
    return GAP if tag in _BLOCKS or (match["empty"] and name not in closed) else ""


def close_gaps(text: str) -> str:
    """One space for an element without text between two words, nothing before punctuation."""
    return re.sub(f"{GAP}+", _gap, text)


def _gap(match: re.Match[str]) -> str:
    text = match.string
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    if not after.isalpha() or not (before.isalpha() or (before and before in _ENDS)):
        return ""
    return "" if _NO_SPACES.match(before) and _NO_SPACES.match(after) else " "
