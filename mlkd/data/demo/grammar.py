"""The phrase grammar behind the embedded demo corpus.

Templates (``*.txt``, one file per domain) hold one sentence in the five languages with typed
slots; the lexicon (``*.tsv``) holds the fillers. A template block has one or more slot lines
and one line per language::

    @ x=product t=past
    I bought {x.a} {t}.
    Ich habe {t} {x.a.acc} gekauft.
    ...

Slots are ``{x.form.form}``. Besides, ``{x.the+c}`` adds the adjective of slot c to noun x,
``{c@x}`` is adjective c agreeing with noun x (masculine without a noun), and ``{x?il|elle}``
chooses by the gender of noun x.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import zip_longest
from math import gcd, prod

from mlkd.data.demo import LANGUAGES
from mlkd.data.demo.inflect import action, agree, by_gender, noun_phrase, variant

DOMAINS = ("support", "account", "orders", "travel", "home", "work", "health", "small_talk")
LEXICON = ("nouns", "adjectives", "actions", "phrases")
SLOT = re.compile(r"\{(\w+)(?:@(\w+))?((?:\.[^.{}+?]+)*)(?:\+(\w+))?(?:\?([^}]*))?\}")


@dataclass(frozen=True)
class Entry:
    """A filler: one line of a lexicon file."""

    kind: str
    cells: dict[str, str]


@dataclass(frozen=True)
class Template:
    """A sentence with typed slots in every language."""

    domain: str
    slots: dict[str, str]
    texts: dict[str, str]


@dataclass(frozen=True)
class DemoSentence:
    """One sentence in every language."""

    texts: dict[str, str]
    domain: str


def read_lexicon() -> dict[str, list[Entry]]:
    """All fillers by type; an entry may have several types."""
    lexicon: dict[str, list[Entry]] = {}
    for kind in LEXICON:
        text = (files("mlkd.data.demo") / f"{kind}.tsv").read_text(encoding="utf-8")
        for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
            entry = Entry(kind, {language: row[language] for language in LANGUAGES})
            for name in row["types"].split():
                lexicon.setdefault(name, []).append(entry)
    return lexicon


def read_templates() -> list[Template]:
    """All templates, domain by domain."""
    templates = []
    for domain in DOMAINS:
        text = (files("mlkd.data.demo") / f"{domain}.txt").read_text(encoding="utf-8")
        for block in re.findall(r"^@.*(?:\n[^\n]+)+", text, re.MULTILINE):
            lines = block.splitlines()
            texts = dict(zip(LANGUAGES, lines[-len(LANGUAGES) :], strict=True))
            for header in lines[: -len(LANGUAGES)]:
                slots = dict(slot.split("=") for slot in header.split()[1:])
                templates.append(Template(domain, slots, texts))
    return templates


def fill_template(language: str, text: str, fillers: dict[str, Entry]) -> str:
    """Render one language of a template."""

    def surface(match: re.Match[str]) -> str:
        name, other, dotted, adjective, choices = match.groups()
        entry = fillers[name]
        cell = entry.cells[language]
        form = tuple(dotted.split(".")[1:])
        if choices is not None:
            return by_gender(language, choices, cell)
        if entry.kind == "adjectives":
            noun = fillers[other].cells[language] if other else "m"
            return agree(language, cell, noun, form)
        if entry.kind == "actions":
            return action(language, cell, form)
        if entry.kind == "phrases":
            return variant(cell, form)
        adjective_cell = fillers[adjective].cells[language] if adjective else ""
        return noun_phrase(language, cell, form, adjective_cell)

    return capitalise(language, SLOT.sub(surface, text))


def capitalise(language: str, sentence: str) -> str:
    """Upper-case the first letter, which may follow Spanish "¿" or "¡"."""
    start = 1 if sentence[0] in "¿¡" else 0
    first = sentence[start]
    first = "İ" if language == "tr" and first == "i" else first.upper()
    return sentence[:start] + first + sentence[start + 1 :]


def fillings(
    template: Template, lexicon: dict[str, list[Entry]], cap: int, offset: int
) -> Iterator[dict[str, Entry]]:
    """At most ``cap`` evenly spread ways to fill the slots, no entry twice in one.

    The ``offset`` is where to start, so that templates do not all begin with the first filler.
    """
    pools = [lexicon[name] for name in template.slots.values()]
    total = prod(len(pool) for pool in pools)
    # A stride near the golden section that shares no factor with the total visits every
    # combination once and spreads any prefix over all fillers.
    stride = next(n for n in range(int(total * 0.618) + 1, 2 * total + 2) if gcd(n, total) == 1)
    yielded = 0
    for step in range(total):
        number, chosen = (offset + step) * stride % total, []
        for pool in pools:
            number, index = divmod(number, len(pool))
            chosen.append(pool[index])
        if len({id(entry) for entry in chosen}) == len(chosen):
            yield dict(zip(template.slots, chosen, strict=True))
            yielded += 1
        if yielded == cap:
            return


def normalise(sentence: str) -> str:
    """The English key of a sentence: lower case without punctuation."""
    return re.sub(r"[^\w ]", "", sentence.lower())


def expand(
    template: Template, lexicon: dict[str, list[Entry]], cap: int, offset: int
) -> Iterator[DemoSentence]:
    """The sentences of one template."""
    for fillers in fillings(template, lexicon, cap, offset):
        texts = {
            language: fill_template(language, template.texts[language], fillers)
            for language in LANGUAGES
        }
        yield DemoSentence(texts, template.domain)


def sentences(cap: int = 250) -> Iterator[DemoSentence]:
    """All sentences, distinct in English and always in the same order.

    The templates take turns, so that any prefix is as mixed as the whole.

    Args:
        cap: how many sentences a template may give at most.
    """
    lexicon = read_lexicon()
    seen = set()
    templates = enumerate(read_templates())
    rounds = zip_longest(*(expand(template, lexicon, cap, n) for n, template in templates))
    for sentence in (sentence for batch in rounds for sentence in batch if sentence):
        key = normalise(sentence.texts["en"])
        if key not in seen:
            seen.add(key)
            yield sentence
