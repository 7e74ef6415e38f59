"""How well a vocabulary covers the text of each language."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from mlkd.data.store import PairStore

_MEASURED = 2000
"""Sentences of a language that are measured."""
_NAMED = 8
"""So many characters without a piece are shown."""


@dataclass(frozen=True)
class Coverage:
    """What a tokenizer makes of a language.

    Attributes:
        characters_per_token: Characters of its sentences, spaces included, over tokens, special
            ones aside.
        unknown: Share of the tokens that are unknown, in %.
        lacks: Different characters of its text without a piece, and
        lacking: the share of its text, spaces aside, that they are, in %.
        examples: The most frequent of them.
    """

    characters_per_token: float
    unknown: float
    lacks: int
    lacking: float
    examples: str

    def __str__(self) -> str:
        line = f"{self.characters_per_token:.2f} characters a token, {self.unknown:.2f} % unknown"
        if self.lacks:
            verb = "character has" if self.lacks == 1 else "characters have"
            more = " …" if self.lacks > len(self.examples) else ""
            line += (
                f"; {self.lacks} {verb} no piece ({self.lacking:.2f} % of its text: "
                f"{' '.join(self.examples)}{more})"
            )
        return line


def coverage_of(tokenizer: PreTrainedTokenizerBase, pairs: PairStore) -> dict[str, Coverage]:
    """Measure a fast tokenizer on held-out sentences of each language; all where none are."""
    dev = pairs.dev_pairs()
    held_out = np.zeros(pairs.n_sentences, bool)
    held_out[pairs.source[dev]] = held_out[pairs.translation[dev]] = True
    result = {}
    for number, language in enumerate(pairs.languages):
        mine = pairs.language == number
        which = np.flatnonzero(mine & held_out if (mine & held_out).any() else mine)
        which = np.sort(np.random.default_rng(0).permutation(which)[:_MEASURED])
        result[language] = coverage(tokenizer, pairs.texts(which))
    return result


def coverage(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Coverage:
    """Measure a fast tokenizer on texts of one language."""
    rows = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    ids = np.fromiter((i for row in rows for i in row), np.int64)
    unknown = ids == (-1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id)
    normalizer = tokenizer.backend_tokenizer.normalizer
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text) if normalizer else text)
    counts = Counter({c: n for c, n in counts.items() if not c.isspace()})
    spelled = tokenizer(list(counts), add_special_tokens=False)["input_ids"]
    lacking = [c for c, row in zip(counts, spelled, strict=True) if tokenizer.unk_token_id in row]
    lacking.sort(key=lambda c: (-counts[c], c))
    return Coverage(
        characters_per_token=sum(map(len, texts)) / max(len(ids), 1),
        unknown=100 * float(unknown.mean()) if len(ids) else 0.0,
        lacks=len(lacking),
        lacking=100 * sum(counts[c] for c in lacking) / max(counts.total(), 1),
        examples="".join(lacking[:_NAMED]),
    )
