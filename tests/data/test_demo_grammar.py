"""The training part of the demo corpus: size, form and inflection of every sentence."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from mlkd.data.demo import LANGUAGES
from mlkd.data.demo.grammar import (
    DOMAINS,
    DemoSentence,
    normalise,
    read_lexicon,
    read_templates,
    sentences,
)
from mlkd.data.demo.inflect import action, noun_phrase
from mlkd.data.demo.turkish import CASES, POSSESSORS, attach, decline

BACK, FRONT = "aıou", "eiöü"

# What no well-formed sentence of the language contains.
FORBIDDEN = {
    "en": [
        r"\b[Aa] [aeio]",
        r"\b[Aa]n [^aeiouh]",
        r"\b(the|a|an|my) (the|a|an|my)\b",
    ],
    "de": [
        r"\b([Zz]u|[Bb]ei|[Vv]on) dem\b",
        r"\bzu der\b",
        r"\bin das\b",
        r"[^,] an dem\b",
        r"[^,] in dem\b",
        r"\b(ein|mein|kein|Ihr) (der|die|das)\b",
    ],
    "fr": [
        r"(?i)(?<!-)\b(l[ea]|de|je|ne|que|se|me|te) (?!onze|huit|haut)[aeiouâéèêîôûœh]",
        r"(?i)\b(ma|ta|sa|ce) [aeiouéèêîôœ]",
        r"(?i)\b(de|à) les? (?![a-zé]+r\b)",
        r"\b(si|Si) ils?\b",
        r"[^ ][?!;]",
        r"' ",
    ],
    "es": [
        r"\b[Dd]e el\b",
        r"\b[Aa] el\b",
        r"\by h?i(?!e)",
        r"\bo h?o",
        r" [?!]",
    ],
    "tr": [
        r"\bI[a-zçğıöşü]*[eiöü]",
        r" [?!.,]",
    ],
}


@pytest.fixture(scope="module")
def corpus() -> list[DemoSentence]:
    return list(sentences())


def texts(corpus: list[DemoSentence], language: str) -> list[str]:
    return [sentence.texts[language] for sentence in corpus]


def test_has_20000_distinct_sentences_in_every_language(corpus: list[DemoSentence]) -> None:
    assert len({normalise(text) for text in texts(corpus, "en")}) == len(corpus) >= 20_000
    for language in LANGUAGES:
        assert len(set(texts(corpus, language))) == len(corpus)


def test_no_template_dominates(corpus: list[DemoSentence]) -> None:
    structures = {template.texts["en"] for template in read_templates()}
    assert len(structures) >= 150
    assert max(Counter(sentence.domain for sentence in corpus).values()) < len(corpus) / 2
    assert len(list(sentences(cap=3))) <= 3 * len(read_templates())


def test_every_domain_occurs_and_support_is_about_half(corpus: list[DemoSentence]) -> None:
    counts = Counter(sentence.domain for sentence in corpus)
    assert set(counts) == set(DOMAINS)
    support = counts["support"] + counts["account"] + counts["orders"]
    assert 0.4 < support / len(corpus) < 0.6
    assert {sentence.domain for sentence in corpus[: len(read_templates())]} == set(DOMAINS)


def test_same_sentences_in_the_same_order_every_time(corpus: list[DemoSentence]) -> None:
    assert list(sentences()) == corpus


def test_every_text_is_one_clean_line(corpus: list[DemoSentence]) -> None:
    for sentence in corpus:
        assert tuple(sentence.texts) == LANGUAGES
        for text in sentence.texts.values():
            assert not re.search(r"[{}|~^*+@/\t\n]|  |^ | $|\.\.", text), text
            assert re.match(r"[¿¡]?[A-ZÀ-ÖØ-ÞİŞÇĞ0-9]", text), text


def test_ends_alike_in_every_language(corpus: list[DemoSentence]) -> None:
    for sentence in corpus:
        assert {text[-1] for text in sentence.texts.values()} <= set(".?!")
        assert len({text[-1] for text in sentence.texts.values()}) == 1, sentence


def test_spanish_marks_come_in_pairs(corpus: list[DemoSentence]) -> None:
    for text in texts(corpus, "es"):
        assert (text.count("¿"), text.count("¡")) == (text.count("?"), text.count("!")), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_contains_no_forbidden_pattern(corpus: list[DemoSentence], language: str) -> None:
    for pattern in FORBIDDEN[language]:
        found = [text for text in texts(corpus, language) if re.search(pattern, text)]
        if language == "de":  # "Im" is wrong before a noun with a relative clause.
            found = [text for text in found if not re.match(r"In dem \w+, de[nr] ", text)]
        assert not found, (pattern, found[:5])


def test_german_nouns_are_capitalised(corpus: list[DemoSentence]) -> None:
    words = {word for text in texts(corpus, "de") for word in re.findall(r"\w+", text)}
    for entries in read_lexicon().values():
        for entry in entries:
            if entry.kind == "nouns":
                noun = entry.cells["de"][2:].split("/")[0].split(">")[0].split(" ")[0]
                assert noun[0].isupper(), noun
                assert noun.lower() not in words, noun


def test_every_slot_is_used_in_every_language() -> None:
    for template in read_templates():
        for language in LANGUAGES:
            used = set(re.findall(r"[{@+](\w+)", template.texts[language]))
            assert used == set(template.slots), template.texts[language]


def test_lexicon_lines_are_complete_and_used() -> None:
    used = {name for template in read_templates() for name in template.slots.values()}
    lexicon = read_lexicon()
    assert set(lexicon) == used
    for entries in lexicon.values():
        for entry in entries:
            assert all(entry.cells[language] for language in LANGUAGES), entry
            if entry.kind == "nouns":
                assert re.match(r"[mfn] \S", entry.cells["de"]), entry
                assert re.match(r"[mf] \S", entry.cells["fr"]), entry
                assert re.match(r"[mf] \S", entry.cells["es"]), entry


def harmonic(before: str, vowel: str) -> bool:
    """Whether a suffix vowel may follow the vowel before it."""
    if vowel in "ıiuü" and (vowel in "uü") != (before in "ouöü"):
        return False
    return (vowel in BACK) == (before in BACK)


def vowels(word: str) -> list[str]:
    return [letter for letter in word if letter in BACK + FRONT]


def test_turkish_case_forms_follow_vowel_harmony() -> None:
    entries = [entry for entries in read_lexicon().values() for entry in entries]
    nouns = {entry.cells["tr"] for entry in entries if entry.kind == "nouns"}
    regular = [noun for noun in nouns if "^" not in noun]
    assert len(regular) > len(nouns) / 2
    for noun in regular:
        stem = len(vowels(noun.partition("/")[0].rstrip("+")))
        for possessor in ("", *POSSESSORS):
            for case in ("", *CASES):
                for number in ("", "pl"):
                    form = decline(noun, (possessor, case, number))
                    found = vowels(form)
                    suffix = zip(found[stem - 1 :], found[stem:], strict=False)
                    assert all(harmonic(before, vowel) for before, vowel in suffix), form


def test_turkish_question_particles_follow_vowel_harmony(corpus: list[DemoSentence]) -> None:
    met = set()
    for text in texts(corpus, "tr"):
        for word, particle in re.findall(
            r"(\w+) m([iıuü])(?:y[iıuü]m|s[iıuü]n(?:[iıuü]z)?)?\b", text
        ):
            assert word == "saat" or harmonic(vowels(word)[-1], particle), text
            met.add(particle)
    assert met == set("iıuü")


@pytest.mark.parametrize(
    ("noun", "form", "expected"),
    [
        ("kitap/kitab", ("acc",), "kitabı"),
        ("kitap/kitab", ("loc",), "kitapta"),
        ("saat^", ("dat",), "saate"),
        ("oğul/oğl", ("my", "gen"), "oğlumun"),
        ("çalışma masa+", (), "çalışma masası"),
        ("çalışma masa+", ("acc",), "çalışma masasını"),
        ("çalışma masa+", ("my", "abl"), "çalışma masamdan"),
        ("banka hesap/hesab+", ("your", "dat"), "banka hesabınıza"),
        ("komşu", ("gen",), "komşunun"),
        ("köpek/köpeğ", ("his",), "köpeği"),
        ("yatak/yatağ", ("mI",), "yatak mı"),
        ("araba", ("ins",), "arabayla"),
        ("araba", ("dA",), "araba da"),
        ("kitap/kitab", ("dA",), "kitap da"),
        ("ceket", ("dA",), "ceket de"),
        ("çalar saat^", ("dA",), "çalar saat de"),
        ("çamaşır makine+", ("dA",), "çamaşır makinesi de"),
    ],
)
def test_turkish_declension(noun: str, form: tuple[str, ...], expected: str) -> None:
    assert decline(noun, form) == expected


@pytest.mark.parametrize(
    ("stem", "pattern", "expected"),
    [
        ("iptal et/ed", "mAk", "iptal etmek"),
        ("iptal et/ed", "(y)AmIyorum", "iptal edemiyorum"),
        ("öde", "(y)Abilirim", "ödeyebilirim"),
        ("oku", "mAyI mI", "okumayı mı"),
        ("güzel", "(y)DI", "güzeldi"),
        ("küçük", "(y)DI", "küçüktü"),
    ],
)
def test_turkish_suffixes(stem: str, pattern: str, expected: str) -> None:
    assert attach(stem, pattern) == expected


@pytest.mark.parametrize(
    ("language", "noun", "form", "adjective", "expected"),
    [
        ("en", "oven", ("a",), "", "an oven"),
        ("en", "knife/knives", ("pl",), "red", "red knives"),
        ("de", "m Tisch/Tische", ("a", "acc"), "neu", "einen neuen Tisch"),
        ("de", "m Tisch/Tische", ("a",), "neu", "ein neuer Tisch"),
        ("de", "n Rad/Räder", ("pl", "dat"), "", "Rädern"),
        ("de", "m Kollege>Kollegen/Kollegen", ("my", "dat"), "", "meinem Kollegen"),
        ("de", "m Tisch/Tische", ("the", "gen"), "", "des Tisches"),
        ("de", "f Post", ("zu", "the"), "", "zur Post"),
        ("de", "n Bad/Bäder", ("in", "the", "acc"), "", "ins Bad"),
        ("fr", "m hôtel", ("the", "to"), "", "à l'hôtel"),
        ("fr", "m marché", ("the", "of"), "", "du marché"),
        ("fr", "f écharpe", ("my",), "", "mon écharpe"),
        ("fr", "m oreiller", ("this",), "", "cet oreiller"),
        ("fr", "m *haut-parleur", ("the",), "", "le haut-parleur"),
        ("fr", "m cheval/chevaux", ("a", "pl"), "blanc/blanche", "des chevaux blancs"),
        ("fr", "f table", ("a",), "<petit/petite", "une petite table"),
        ("es", "m hotel", ("the", "of"), "", "del hotel"),
        ("es", "f mesa", ("this", "pl"), "rojo/roja", "estas mesas rojas"),
        ("tr", "masa", ("my", "acc"), "yeni", "yeni masamı"),
    ],
)
def test_noun_phrases(
    language: str, noun: str, form: tuple[str, ...], adjective: str, expected: str
) -> None:
    assert noun_phrase(language, noun, form, adjective) == expected


def test_verb_phrases() -> None:
    assert action("de", "das Paket ab~holen", ("zu",)) == "das Paket abzuholen"
    assert action("de", "das Paket ~öffnen", ("zu",)) == "das Paket zu öffnen"
    assert action("de", "~fotografieren", ("zu",)) == "zu fotografieren"
    assert action("de", "das Paket ab~holen", ()) == "das Paket abholen"
    assert action("fr", "annuler ma commande", ("of",)) == "d'annuler ma commande"
    assert action("tr", "kartı ~al", ("(y)Abilirim", "nasıl")) == "kartı nasıl alabilirim"
