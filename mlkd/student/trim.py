"""Vocabulary trimming: only the pieces that the chosen languages use (Ansell et al., 2023).

A piece is kept where its share of some language's tokens reaches a threshold. Text whose pieces are
all kept is cut as before and gets the same vectors; other text is cut into smaller pieces, for
which digits, punctuation and Latin letters stay although no pair has them.
"""

from __future__ import annotations

import copy
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from mlkd.config.student import TrimConfig
from mlkd.data.store import PairStore
from mlkd.data.tokens import TokenStore
from mlkd.encoders.backbone import backbone_of, longest_input
from mlkd.encoders.coded import CodedEmbedding
from mlkd.encoders.compact import CompactTransformer
from mlkd.encoders.tokenizer import reload, set_tokenizer
from mlkd.encoders.words import set_word_table, word_table
from mlkd.output.errors import UserError
from mlkd.student.wordpiece import cut_into_runs, is_cut_into_runs

_CHUNK = 100_000
_MARKS = ("##", "▁")
"""What marks a piece inside a word (WordPiece) or at its start (SentencePiece)."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""What spells a character without a piece where the vocabulary falls back on bytes."""
_ALWAYS = frozenset(
    c
    for c in map(chr, range(0x10000))
    if (c < "\u0180" and c.isprintable() and not c.isspace())
    or "\u2010" <= c <= "\u205e"
    or unicodedata.category(c) == "Sc"
)
"""ASCII, Latin letters with accents, the usual punctuation, and currencies."""

Mask = NDArray[np.bool_]


def language_counts(
    pairs: PairStore, tokens: TokenStore, vocabulary: int
) -> dict[str, NDArray[np.int64]]:
    """Count of each token ``(vocabulary,)`` in the distinct sentences of each language."""
    counts = np.zeros(len(pairs.languages) * vocabulary, np.int64)
    for start in range(0, pairs.n_sentences, _CHUNK):
        stop = min(start + _CHUNK, pairs.n_sentences)
        offsets = tokens.offsets[start : stop + 1]
        language = np.repeat(pairs.language[start:stop].astype(np.int64), np.diff(offsets))
        ids = tokens.ids[offsets[0] : offsets[-1]]
        counts += np.bincount(language * vocabulary + ids, minlength=len(counts))
    rows = counts.reshape(len(pairs.languages), vocabulary)
    return dict(zip(pairs.languages, rows, strict=True))


def check_languages(section: str, config: TrimConfig, known: Iterable[str]) -> None:
    """Refuse languages that the pairs do not have.

    Args:
        section: What the configuration calls ``config``.
        config: Its ``languages`` are checked.
        known: Languages of the pairs.

    Raises:
        UserError: The pairs have no text of a language.
    """
    if missing := sorted(set(config.languages or ()).difference(known)):
        raise UserError(
            f"{section}.languages: the pairs hold no {missing[0]}; "
            f"allowed: {', '.join(sorted(known))}"
        )


def pieces_to_keep(
    model: SentenceTransformer, counts: dict[str, NDArray[np.int64]], config: TrimConfig
) -> Mask:
    """Which rows of the word table stay ``(V,)``.

    Besides the pieces that are frequent enough these are the special ones, the single characters
    that the kept pieces are made of, so that a word whose piece is gone can still be spelled, those
    of :data:`_ALWAYS` that the vocabulary has, and what byte-pair merges need to make them.

    Args:
        model: The encoder.
        counts: Count of each token by language.
        config: Languages and threshold.

    Raises:
        UserError: The corpus has no text of a language.
    """
    tokenizer, backbone = model.tokenizer, backbone_of(model)
    check_languages("trim", config, counts)
    languages = list(counts) if config.languages is None else config.languages
    special = sorted(_special_ids(tokenizer))
    keep = np.zeros(backbone.config.vocab_size, bool)
    for language in languages:
        count = counts[language].copy()
        count[special] = 0
        keep |= count >= max(config.min_share * count.sum(), 1)
    keep[special] = True
    if backbone.config.model_type != "bert":
        keep[: backbone.config.pad_token_id + 1] = True  # positions are counted from it
    vocabulary = {piece: i for piece, i in tokenizer.get_vocab().items() if i < len(keep)}
    known = {i: piece for piece, i in vocabulary.items()}
    backend = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())["model"]
    letters = {c for i in np.flatnonzero(keep) for c in _bare(known.get(int(i), ""))}
    normalise = backend.normalizer.normalize_str if backend.normalizer else str
    letters |= {*_ALWAYS, *(c for always in _ALWAYS for c in normalise(always))}
    for piece, i in vocabulary.items():
        bare = _bare(piece)
        keep[i] |= len(bare) == 1 and (bare in letters or state["type"] == "BPE")
        keep[i] |= bool(state.get("byte_fallback")) and _BYTE.fullmatch(piece) is not None
        keep[i] |= piece in _MARKS  # before a character that no kept word begins with
    if state["type"] == "BPE":
        for left, right, merged in reversed(list(_merges(state))):
            if keep[vocabulary[merged]]:  # a merge comes after those that make its parts
                keep[[vocabulary[left], vocabulary[right]]] = True
    return keep


def trimmed(model: SentenceTransformer, keep: Mask) -> SentenceTransformer:
    """A copy of an encoder with some rows of its word table, and a tokenizer that knows no others.

    Args:
        model: Left as it is.
        keep: Rows that stay ``(V,)``; they keep their order.

    Raises:
        UserError: The tokenizer is of a kind that cannot be trimmed.
    """
    result: Any = copy.deepcopy(model)
    backbone = backbone_of(result)
    tokenizer = trimmed_tokenizer(model.tokenizer, keep)
    words = backbone.get_input_embeddings()
    rows = torch.from_numpy(np.flatnonzero(keep))
    pad_id = tokenizer.pad_token_id
    if isinstance(words, CodedEmbedding):
        backbone.set_input_embeddings(words.select(rows))
    else:
        set_word_table(backbone, _selected(word_table(backbone), rows, pad_id))
    config = backbone.config
    config.vocab_size, config.pad_token_id = len(rows), pad_id
    for role in ("bos", "eos"):
        setattr(config, f"{role}_token_id", getattr(tokenizer, f"{role}_token_id"))
    set_tokenizer(result, tokenizer)
    if not isinstance(result[0], CompactTransformer):
        result.max_seq_length = model.max_seq_length or longest_input(backbone)
    return result.eval()


def trimmed_tokenizer(tokenizer: PreTrainedTokenizerBase, keep: Mask) -> PreTrainedTokenizerBase:
    """A tokenizer with the kept pieces only, numbered 0, 1, 2, … in their old order.

    Args:
        tokenizer: A fast one; left as it is.
        keep: Which ids stay ``(V,)``.

    Raises:
        UserError: Its model is none of WordPiece, Unigram and BPE.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model, new = state["model"], np.cumsum(keep) - 1
    kind = model["type"]
    if kind == "Unigram":
        model["vocab"] = [row for i, row in enumerate(model["vocab"]) if keep[i]]
        if model["unk_id"] is not None:
            model["unk_id"] = int(new[model["unk_id"]])
    elif kind in ("WordPiece", "BPE"):
        if kind == "BPE":
            old = model["vocab"]
            model["merges"] = [
                [left, right]
                for left, right, merged in _merges(model)
                if keep[old[left]] and keep[old[right]] and keep[old[merged]]
            ]
        ids = sorted(model["vocab"].items(), key=lambda item: item[1])
        model["vocab"] = {piece: int(new[i]) for piece, i in ids if keep[i]}
        if kind == "WordPiece" and is_cut_into_runs(state):
            state["pre_tokenizer"] = cut_into_runs(state)
    else:
        raise UserError(f"trim: a tokenizer of kind {kind} cannot be trimmed")
    added = [token for token in state["added_tokens"] if keep[token["id"]]]
    state["added_tokens"] = [token | {"id": int(new[token["id"]])} for token in added]
    _renumber(state.get("post_processor"), new)
    state["padding"] = state["truncation"] = None  # given anew at each call
    return reload(tokenizer, state)


def is_kept(tokenizer: PreTrainedTokenizerBase, keep: Mask, texts: Sequence[str]) -> Mask:
    """Whether all pieces of a text are kept, for each text ``(n,)``."""
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return np.array([bool(keep[row].all()) for row in rows])


def _selected(table: nn.Embedding, rows: Tensor, pad_id: int) -> nn.Embedding:
    """A table of some rows ``(n,)``."""
    result = nn.Embedding(len(rows), table.embedding_dim, padding_idx=pad_id)
    result.weight = nn.Parameter(table.weight.detach()[rows].clone())
    return result


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of special and added tokens."""
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _bare(piece: str) -> str:
    """A piece without the mark of its place in the word."""
    for mark in _MARKS:
        if piece.startswith(mark) and piece != mark:
            return piece.removeprefix(mark)
    return piece


def _merges(model: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Left part, right part and result of each merge, in their order."""
    prefix = model.get("continuing_subword_prefix") or ""
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right, left + right.removeprefix(prefix)


def _renumber(processor: dict[str, Any] | None, new: NDArray[np.int64]) -> None:
    """Give the special tokens that a post-processor adds their new ids."""
    if processor is None:
        return
    for part in processor.get("processors", []):
        _renumber(part, new)
    special = processor.get("special_tokens", {})
    for token in special.values():
        token["ids"] = [int(new[i]) for i in token["ids"]]
    for role in ("sep", "cls"):  # BertProcessing, RobertaProcessing
        if role in processor:
            token, index = processor[role]
            processor[role] = [token, int(new[index])]
