"""An assistant from the teacher: its encoder with a multilingual vocabulary.

The encoder layers stay as they are; the word table gets a row for each new piece, made from the
teacher's own rows, so that stage 1 starts from a model that already reads English.
"""

from __future__ import annotations

import copy
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mlkd.config.student import VocabularyConfig
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import without_prompts
from mlkd.encoders.tokenizer import set_tokenizer
from mlkd.output.errors import UserError
from mlkd.student.word_alignment import aligned_rows
from mlkd.student.wordpiece import (
    PREFIX,
    is_wordpiece,
    learned_wordpiece,
    ranked_characters,
    room_for_characters,
)


def assistant_from_teacher(
    teacher: SentenceTransformer,
    config: VocabularyConfig,
    sentences: Callable[[], Iterable[tuple[str, str]]],
    pairs: Callable[[], Iterable[tuple[str, str]]],
) -> SentenceTransformer:
    """Give a copy of the teacher a vocabulary learned from the pairs; it reads no prompt.

    Args:
        teacher: A sentence encoder with a fast tokenizer; it is left as it is.
        config: Size of the vocabulary and how its rows start.
        sentences: Gives what pieces are learned from, language and text of each: the translations,
            or both sides where the teacher's pieces do not stay.
        pairs: Gives (source, translation) pairs.

    Raises:
        UserError: The teacher's tokenizer does not fit ``config``.
    """
    old = teacher.tokenizer
    if not old.is_fast:
        raise UserError("assistant.vocabulary: the teacher has no fast tokenizer (tokenizer.json)")
    wordpiece = is_wordpiece(old)
    if config.keep_teacher and not wordpiece:
        raise UserError(
            "assistant.vocabulary.keep_teacher=true needs a WordPiece teacher; use "
            "assistant.vocabulary.keep_teacher=false"
        )
    if wordpiece:
        new = learned_wordpiece(old, config.size, sentences(), keep=config.keep_teacher)
    else:
        new = _learned_anew(old, config.size, sentences())
    assistant: Any = without_prompts(copy.deepcopy(teacher))
    backbone = backbone_of(assistant)
    rows = subword_rows(backbone.get_input_embeddings().weight.detach(), old, new)
    if config.rows == "aligned":
        kept = set(old.get_vocab())
        fresh = torch.tensor([piece not in kept for piece in _pieces(new)])
        rows = aligned_rows(rows, fresh, new, pairs())
    backbone.resize_token_embeddings(len(new), mean_resizing=False)
    with torch.no_grad():
        backbone.get_input_embeddings().weight.copy_(rows)
    backbone.config.vocab_size = len(new)
    backbone.config.pad_token_id = new.pad_token_id
    set_tokenizer(assistant, new)
    return assistant


def _learned_anew(
    old: PreTrainedTokenizerBase, size: int, sentences: Iterable[tuple[str, str]]
) -> PreTrainedTokenizerBase:
    """A Unigram or BPE vocabulary learned from texts, instead of the old one.

    Unigram keeps a piece for every character that it meets, however rare, and whatever the size:
    it meets the frequent ones.
    """
    backend = old.backend_tokenizer
    sentences = list(sentences)
    texts = [text for _, text in sentences]
    if "ByteLevel" not in backend.to_str():  # bytes spell everything
        normalise = backend.normalizer.normalize_str if backend.normalizer else str
        ranked = ranked_characters(sentences, normalise)
        rare = str.maketrans(dict.fromkeys(ranked[room_for_characters(size) :], " "))
        if rare:
            texts = [normalise(text).translate(rare) for text in texts]
    return old.train_new_from_iterator(texts, vocab_size=size)


def subword_rows(
    table: Tensor, old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase
) -> Tensor:
    """Rows ``(new vocabulary, d)`` from the teacher's.

    A piece that stays keeps its row; a new one gets the mean of the old pieces that spell it, or
    that spell it without accents.
    """
    vocabulary = old.get_vocab()
    wordpiece = is_wordpiece(old)
    rows = torch.empty(len(new), table.shape[1])
    for index, piece in enumerate(_pieces(new)):
        if piece in vocabulary:
            spelled: Sequence[int] = [vocabulary[piece]]
        elif wordpiece:
            spelled = _spell(piece, vocabulary) or _spell(_without_accents(piece), vocabulary)
        else:
            text = new.convert_tokens_to_string([piece])
            spelled = old(text, add_special_tokens=False)["input_ids"]
        rows[index] = table[spelled or [old.unk_token_id]].mean(0)
    return rows


def _pieces(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Pieces in the order of their ids."""
    return list(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))))


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def _spell(piece: str, vocabulary: dict[str, int]) -> Sequence[int]:
    """Old WordPiece ids that spell a new piece: longest match first, as the tokenizer does."""
    inside = piece.startswith(PREFIX)
    rest = piece.removeprefix(PREFIX)
    ids = []
    while rest:
        prefix = PREFIX if inside else ""
        for end in range(len(rest), 0, -1):
            index = vocabulary.get(prefix + rest[:end])
            if index is not None:
                ids.append(index)
                break
        else:
            end = 1  # a character that the teacher does not know
        rest, inside = rest[end:], True
    return ids
