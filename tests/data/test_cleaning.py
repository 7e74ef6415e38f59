"""Cleaning: what is tidied, what is rejected, and what counts as the same sentence."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlkd.data.cleaning import below, clean, form_hash, hash64, normal_form
from mlkd.data.rows import Reject, Row


def tidy(source: str, target: str = "x", max_chars: int = 50) -> Row | Reject:
    return clean(Row(source, target, "en", "de", "general", "c", "f:1"), max_chars)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t b\n\u00a0c\u2028 ", "a b c"),
        ("cafe\u0301", "caf\u00e9"),
        ("e\u200b\u0301", "\u00e9"),
        ("a \u200b b", "a b"),
        ("\ufeffzero\u200b-width\u2060", "zero-width"),
        ("soft\u00adhyphen", "softhyphen"),
        ("bell\x07 and \x1b[0m", "bell and [0m"),
        ("\u200fשלום\u200e \u202bעולם\u202c", "שלום עולם"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("क\u094d\u200dष", "क\u094d\u200dष"),
        ("ﬁne ①", "ﬁne ①"),
        ("emoji 👩\u200d🚒", "emoji 👩\u200d🚒"),
    ],
)
def test_tidying(text: str, expected: str) -> None:
    row = tidy(text)
    assert isinstance(row, Row)
    assert row.source == expected


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("", "x", "empty side"),
        ("x", " \t\u200b\ufeff", "empty side"),
        ("\u200c\u200d", "x", "empty side"),
        ("x", "\u3164 \u2800\ufe0f", "empty side"),
        ("x", "\u06dd", "no letters"),  # a sign that is seen
        ("x" * 51, "x", "too long"),
        ("x", "x" * 51, "too long"),
        ("1", "2", "no letters"),
        ("What?", "???", "no letters"),
        ("...", "Was?", "no letters"),
        ("%s: %1$d %(name)s %@ %5.2f", "Name: x", "no letters"),
        ("Name: x", "{0} ${name} {{ user.name }} { $count } %lld", "no letters"),
    ],
)
def test_rejected(source: str, target: str, reason: str) -> None:
    row = tidy(source, target)
    assert row == Reject(reason, "f:1", f"{source}\t{target}")


def test_length_is_counted_after_tidying() -> None:
    assert isinstance(tidy("x  " * 25), Row)


@pytest.mark.parametrize(
    "text", ["%s files", "Hi {name}!", "50 % der Dateien", "{a sentence}", "%d a"]
)
def test_placeholders_stay_in_sentences(text: str) -> None:
    row = tidy(text)
    assert isinstance(row, Row)
    assert row.source == text


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Hello, World!", "hello world"),
        ("Straße", "STRASSE"),
        ("ＡＢＣ", "abc"),
        ("don't", "don\u2019t"),
        ("don't", "don\u00b4t"),
        ("« Oui ! »", "oui"),
        ("可以。", "可以"),
        ("a\u200db", "ab"),
    ],
)
def test_same_sentence(a: str, b: str) -> None:
    assert normal_form(a) == normal_form(b)
    assert form_hash(normal_form(a)) == form_hash(normal_form(b))


@pytest.mark.parametrize(("a", "b"), [("की", "का"), ("tea", "té"), ("I ♥ NY", "I NY"), ("2", "3")])
def test_different_sentences(a: str, b: str) -> None:
    assert normal_form(a) != normal_form(b)


def test_hashes_never_change() -> None:
    assert form_hash(normal_form("Hello, World!")) == hash64(b"helloworld") == 6801638793323236970
    assert hash64(b"helloworld", b"fraction") != hash64(b"helloworld")


def test_below_is_a_share_of_all_hashes() -> None:
    hashes = [form_hash(normal_form(f"sentence {i}")) for i in range(20_000)]
    for share in (0.02, 0.5):
        assert sum(below(h, share) for h in hashes) / len(hashes) == pytest.approx(share, rel=0.1)
    assert below(2**64 - 1, 1.0)
    assert not below(0, 0.0)


# A spacing accent may compose with what follows, which no comparison needs to see through.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Sk"]))


@given(TEXT, TEXT)
def test_cleaning_is_final(source: str, target: str) -> None:
    row = tidy(source, target)
    if isinstance(row, Row):
        assert clean(row, 50) == row
        assert unicodedata.is_normalized("NFC", row.source)
        assert normal_form(row.source) == normal_form(source)


def test_salts_of_any_length_give_hashes_of_their_own() -> None:
    salts = [b"", b"en", b"de", b"a" * 16, b"a" * 17, b"a" * 16 + b"b", b"sl-1994-biske-rozaj"]
    assert len({hash64(b"text", salt) for salt in salts}) == len(salts)
    assert hash64(b"text", b"a" * 17) == hash64(b"text", b"a" * 17)
