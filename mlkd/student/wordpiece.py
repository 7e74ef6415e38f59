"""WordPiece vocabularies learned from texts of any script.

A word is cut by longest match, and one character without a piece makes the whole of it unknown. So
what a text is made of has pieces first, and merges get the rest: all characters of an alphabet,
the frequent ones of a script with thousands. Scripts without spaces have words as long as a
sentence: they are cut at characters without a piece, and at the longest word that is read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from mlkd.encoders.tokenizer import long_word, parts_of, pattern_of, reload, sequence, split

PREFIX = "##"
ACCENTED = "àáâãäåçèéêëìíîïñòóôõöùúûüýÿÀÁÂÃÄÅÇÈÉÊËÌÍÎÏÑÒÓÔÕÖÙÚÛÜÝŸ"
"""Letters of Latin-1 that are another letter with an accent."""
_CHARACTERS = 0.5
"""Share of the new pieces that single characters may take before any merge."""
_UNSPACED = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF)),
    *((0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xFF66, 0xFF9F)),
)
"""Thai and Lao, Burmese, Khmer, kana: written without spaces, and not isolated as Han is."""
_BESIDE = "q"
"""A letter that no accent makes one character with."""


def is_wordpiece(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a fast tokenizer cuts words by longest match."""
    return bool(json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"] == "WordPiece")


def learned_wordpiece(
    old: PreTrainedTokenizerBase, size: int, sentences: Iterable[tuple[str, str]], *, keep: bool
) -> PreTrainedTokenizerBase:
    """A vocabulary learned from texts, after the old one, ids unchanged, or instead of it.

    Where the old one is kept, English goes on being cut as before, but for words that a new piece
    begins and for accented letters. Accents, which uncased BERT models strip, are kept: they tell
    words apart in most languages. The usual accented letters have a piece in any case; without
    one a word such as café would be unknown.

    Args:
        old: A fast WordPiece tokenizer.
        size: At most so many pieces are new.
        sentences: Language and text of each.
        keep: Whether the old pieces stay.
    """
    state = json.loads(old.backend_tokenizer.to_str())
    state["normalizer"] = _keeping_accents(state["normalizer"])
    base = reload(old, state)
    spelling = Spelling(base.backend_tokenizer)
    known = set(state["model"]["vocab"]) if keep else set()
    letters = sorted({spelling.normalise(letter) for letter in ACCENTED})
    letters = [form for form in (*letters, *(PREFIX + x for x in letters)) if form not in known]
    letters = letters[:size]

    sentences = list(sentences)
    ranked = ranked_characters(sentences, spelling.normalise)
    forms = {c: [form for form in spelling.forms(c) if form not in known] for c in ranked}
    given = len(letters) + (0 if keep else len(state["added_tokens"]))
    frequent, rare = _within(ranked, forms, min(room_for_characters(size), size - given))
    alone = [c for c in frequent if spelling.is_alone(c)]
    apart = str.maketrans(dict.fromkeys([*alone, *rare], " "))
    texts = [text for _, text in sentences]
    if apart:
        texts = [spelling.normalise(text).translate(apart) for text in texts]
    others = {form for c in alone for form in forms[c]}
    if not keep:
        others |= set(letters) - {form for c in frequent for form in forms[c]}
    # The trainer numbers continuation characters in the random order of a hash map, and ties
    # between merges go by number: named in advance, they make training reproducible. Punctuation is
    # among them although no word goes on with it, since the order of all merges hangs on it.
    learned = base.train_new_from_iterator(
        texts,
        vocab_size=size - len(others),
        new_special_tokens=[PREFIX + c for c in sorted(set(frequent) - set(alone))],
        show_progress=False,
    )
    if not keep:  # [CLS] and [SEP] have other ids
        state["post_processor"] = json.loads(learned.backend_tokenizer.to_str())["post_processor"]
    pieces = sorted(learned.get_vocab(), key=learned.get_vocab().__getitem__)
    occur = [p for p in pieces if p in known or spelling.occurs(p)]
    wanted = [*letters, *(form for c in alone for form in forms[c])]
    left = size - len(set(wanted) | set(occur) - known)
    while left < 0:  # merges that came last
        left += occur.pop() not in {*known, *wanted}
    more, rare = _within(rare, forms, left)
    pieces = [*occur, *wanted, *(form for c in more for form in forms[c])]
    vocabulary = state["model"]["vocab"] if keep else {}
    for piece in pieces:
        vocabulary.setdefault(piece, len(vocabulary))
    state["model"]["vocab"] = vocabulary
    if rare or any(low <= ord(c) <= high for c in ranked for low, high in _UNSPACED):
        state["pre_tokenizer"] = cut_into_runs(state)
    return reload(old, state)


class Spelling:
    """How a tokenizer's normaliser and pre-tokeniser treat single characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.normalise: Callable[[str], str] = str
        if tokenizer.normalizer is not None:
            self.normalise = tokenizer.normalizer.normalize_str
        self._cut = tokenizer.pre_tokenizer
        self._inside: dict[str, bool] = {}

    def is_alone(self, character: str) -> bool:
        """Whether the normaliser isolates it, as that of BERT does with Han characters."""
        return len(self.normalise(_BESIDE + character + _BESIDE).split()) > 1

    def is_inside(self, character: str) -> bool:
        """Whether a word goes on with it."""
        if character not in self._inside:
            text = self.normalise(_BESIDE + character + _BESIDE)
            words = [w for w, _ in self._cut.pre_tokenize_str(text)] if self._cut else text.split()
            self._inside[character] = any(character in word[1:] for word in words)
        return self._inside[character]

    def forms(self, character: str) -> list[str]:
        """Its pieces: at the start of a word, and inside one if it occurs there."""
        return [character, PREFIX + character] if self.is_inside(character) else [character]

    def occurs(self, piece: str) -> bool:
        """Whether a word has a piece: none goes on with a mark of punctuation."""
        return not piece.startswith(PREFIX) or len(piece) != 3 or self.is_inside(piece[2])


def ranked_characters(
    sentences: Iterable[tuple[str, str]], normalise: Callable[[str], str]
) -> list[str]:
    """Characters of texts, first those that are the largest share of some language's text."""
    counts: dict[str, Counter[str]] = {}
    for language, text in sentences:
        counts.setdefault(language, Counter()).update(normalise(text))
    share: dict[str, float] = {}
    for count in counts.values():
        total = count.total()
        for character, n in count.items():
            share[character] = max(share.get(character, 0.0), n / total)
    return sorted((c for c in share if not c.isspace()), key=lambda c: (-share[c], c))


def room_for_characters(size: int) -> int:
    """How many pieces of a vocabulary single characters may take before any merge."""
    return int(_CHARACTERS * size)


def _within(
    ranked: Sequence[str], forms: dict[str, list[str]], room: int
) -> tuple[list[str], list[str]]:
    """Cut ranked characters where their pieces are more than ``room``."""
    used = 0
    for number, character in enumerate(ranked):
        used += len(forms[character])
        if used > room:
            return list(ranked[:number]), list(ranked[number:])
    return list(ranked), []


def cut_into_runs(state: dict[str, Any]) -> dict[str, Any]:
    """Pre-tokeniser of a state that also cuts words at characters without a piece.

    These are unknown by themselves then, not with the sentence around them; and a run of known ones
    is no longer than the longest word that the model reads.
    """
    vocabulary, longest = state["model"]["vocab"], state["model"]["max_input_chars_per_word"]
    parts = [part for part in parts_of(state) if not _cuts_into_runs(part)]
    parts = [part for part in parts if pattern_of(part) != long_word(longest)]
    spelling = Spelling(Tokenizer.from_str(json.dumps(state | {"pre_tokenizer": sequence(parts)})))
    known = sorted(
        ord(piece)
        for piece in vocabulary
        if len(piece) == 1 and (PREFIX + piece in vocabulary or not spelling.is_inside(piece))
    )
    starts = [c for before, c in pairwise([-1, *known]) if c != before + 1]
    ends = [c for c, after in pairwise([*known, -1]) if after != c + 1]
    ranges = "".join(f"\\x{{{a:X}}}-\\x{{{b:X}}}" for a, b in zip(starts, ends, strict=True))
    return sequence([*parts, split(f"[{ranges}]{{1,{longest}}}")])


def is_cut_into_runs(state: dict[str, Any]) -> bool:
    """Whether a state has the pre-tokeniser of :func:`cut_into_runs`."""
    return any(_cuts_into_runs(part) for part in parts_of(state))


def _cuts_into_runs(part: dict[str, Any]) -> bool:
    return pattern_of(part).startswith("[\\x{")


def _keeping_accents(normalizer: dict[str, Any] | None) -> dict[str, Any] | None:
    """The state of BERT's normaliser, changed to keep accents, as one character with their letter.

    Turkish İ becomes an i first: lower-casing would leave a dot as a character of its own, with
    which no piece goes on.
    """
    if normalizer is None or normalizer["type"] != "BertNormalizer":
        return normalizer
    first: list[dict[str, Any]] = [{"type": "NFC"}]
    if normalizer["lowercase"]:
        first.append({"type": "Replace", "pattern": {"String": "İ"}, "content": "i"})
    return {"type": "Sequence", "normalizers": [*first, normalizer | {"strip_accents": False}]}
