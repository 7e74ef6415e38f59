"""Cleaning of rows, and the normal form by which sentences of different sets are compared."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from mlkd.data.rows import Reject, Row

# Control characters, soft hyphen, zero-width and direction marks. ZWNJ and ZWJ stay: Persian and
# Indic spelling and emoji need them. Those that count as white space are collapsed instead.
_JUNK = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
)

_UNSEEN = {"Zs", "Zl", "Zp", "Cc", "Cf"}
"""Categories of characters that leave nothing to read: white space, controls, joiners, marks."""
_FILLERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
"""Characters of other categories that do not either: fillers of Hangul, variation selectors."""
_DRAWN = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")
"""Signs of Arabic, Syriac and Kaithi that are seen, though their category is that of joiners."""

# What programs fill in: %s, %1$d, %(name)s, %@, {0}, ${name}, {{ name }}, { $name }. It stays in a
# sentence, but is none by itself.
_PLACEHOLDER = re.compile(
    r"%(?:\(\w+\)|\d+\$)?[-+#0 ]?[\d.*]*(?:hh?|ll?|[qLjzt])?(?:[a-zA-Z](?![a-zA-Z])|@)"
    r"|\$?\{\{?\s*(?:[\w$.:,#-]+\s*)?\}?\}"
)


class _Kept(dict[int, int | None]):
    """For ``str.translate``: drops punctuation, separators, controls and modifier symbols."""

    def __missing__(self, code: int) -> int | None:
        category = unicodedata.category(chr(code))
        self[code] = None if category[0] in "PZC" or category == "Sk" else code
        return self[code]


_KEPT = _Kept()


def clean(row: Row, max_chars: int) -> Row | Reject:
    """Tidy both sides of a row, or say why it is of no use.

    Args:
        row: As read.
        max_chars: Longest side, in characters after tidying.
    """
    source, target = _tidy(row.source), _tidy(row.target)
    if is_blank(source) or is_blank(target):
        reason = "empty side"
    elif len(source) > max_chars or len(target) > max_chars:
        reason = "too long"
    elif not (has_letters(source) and has_letters(target)):
        reason = "no letters"
    else:
        return row._replace(source=source, target=target)
    return Reject(reason, row.place, f"{row.source}\t{row.target}")


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be read: it is empty, white space, or without any width."""
    return all(
        _FILLERS.match(c) or (unicodedata.category(c) in _UNSEEN and not _DRAWN.match(c))
        for c in text
    )


def normal_form(text: str) -> str:
    """What is left for comparison: NFKC, case folded, no punctuation, no white space."""
    if text.isascii():
        return text.lower().translate(_KEPT)
    # Spacing accents go first: NFKC would make them combine with the letter before.
    text = unicodedata.normalize("NFKC", text.translate(_KEPT))
    return text.casefold().translate(_KEPT)


def hash64(data: bytes, salt: bytes = b"") -> int:
    """64-bit hash; different salts give independent hashes."""
    if len(salt) > hashlib.blake2b.PERSON_SIZE:
        salt = hashlib.blake2b(salt, digest_size=hashlib.blake2b.PERSON_SIZE).digest()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=salt).digest(), "little")


def form_hash(form: str) -> int:
    """Hash of a normal form: no spelling variant of a sentence is in two splits."""
    return hash64(form.encode())


def below(value: int, fraction: float) -> bool:
    """Whether a 64-bit hash is among the lowest ``fraction`` of all hashes."""
    return value < fraction * 2.0**64


def without_placeholders(text: str) -> str:
    """A text without what programs fill in."""
    return _PLACEHOLDER.sub("", text) if "%" in text or "{" in text else text


def has_letters(text: str) -> bool:
    """Whether there are letters beside placeholders."""
    return any(map(str.isalpha, without_placeholders(text)))


def _tidy(text: str) -> str:
    if not text.isprintable():
        text = _JUNK.sub("", text)
    return " ".join(unicodedata.normalize("NFC", text).split())
