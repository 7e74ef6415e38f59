"""The hand-written part of the demo corpus: held-out sentence sets and scored pairs."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import Counter
from importlib.resources import files

import pytest

from mlkd.data.demo.grammar import DOMAINS, LANGUAGES, DemoSentence, normalise, sentences

Rows = list[dict[str, str]]


def rows(name: str) -> Rows:
    text = files("mlkd.data.demo").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def held() -> Rows:
    return rows("heldout.tsv")


@pytest.fixture(scope="module")
def scored() -> Rows:
    return rows("sts.tsv")


def texts(held: Rows, scored: Rows, language: str) -> list[str]:
    return [row[language] for row in held] + [row[language + k] for row in scored for k in "12"]


def test_there_are_enough_of_both(held: Rows, scored: Rows) -> None:
    assert len(held) >= 200
    assert len(scored) >= 150
    assert min(Counter(row["domain"] for row in held).values()) >= 10
    assert {row["domain"] for row in held} <= set(DOMAINS)


def test_ids_are_unique(held: Rows, scored: Rows) -> None:
    ids = [row["id"] for row in (*held, *scored)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_is_well_formed(held: Rows, scored: Rows, language: str) -> None:
    for text in texts(held, scored, language):
        assert unicodedata.is_normalized("NFC", text), text
        assert text == text.strip(), text
        assert "  " not in text, text
        assert text[-1] in ".?!…" or text[-2:] in {".”", "?”", "!”", ".“", "?“", ".»"}, text
        assert not re.search(r"[\u00a0\u202f\u2019]", text), text
        if language == "fr":  # a blank before high punctuation, and only there
            assert not re.search(r"[^\s][?!;:]", text), text
        else:
            assert not re.search(r"\s[?!.,;:]", text), text
        if language == "es":
            assert text.count("¿") == text.count("?"), text
            assert text.count("¡") == text.count("!"), text


def test_translations_ask_where_the_english_asks(held: Rows, scored: Rows) -> None:
    for row in (*held, *scored):
        for side in ("", "1", "2"):
            if (english := row.get("en" + side)) is None:
                continue
            asks = {row[language + side].count("?") for language in LANGUAGES}
            assert asks == {english.count("?")}, row["id"]


@pytest.fixture(scope="module")
def trained() -> list[DemoSentence]:
    return list(sentences(cap=250))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sentence_comes_twice_or_can_be_trained_on(
    held: Rows, scored: Rows, trained: list[DemoSentence], language: str
) -> None:
    normal = [normalise(text) for text in texts(held, scored, language)]
    assert [text for text, count in Counter(normal).items() if count > 1] == []
    assert {normalise(sentence.texts[language]) for sentence in trained}.isdisjoint(normal)


def test_scores_cover_the_scale_in_dev_and_test(scored: Rows) -> None:
    for split in ("dev", "test"):
        scores = [float(row["score"]) for row in scored if row["split"] == split]
        assert all(0 <= score <= 5 and (2 * score).is_integer() for score in scores)
        fifths = Counter(min(4, int(score)) for score in scores)
        assert len(scores) >= 60
        assert all(fifths[fifth] >= 10 for fifth in range(5)), fifths
