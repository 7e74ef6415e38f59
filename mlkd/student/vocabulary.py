"""An assistant from the teacher: its encoder with a multilingual vocabulary.

The encoder layers stay as they are; the word table gets a row for each new piece, made from the
teacher's own rows, so that stage 1 starts from a model that already reads English.
"""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mlkd.config.schema import VocabularyConfig
from mlkd.encoders.backbone import backbone_of
from mlkd.output.errors import UserError
from mlkd.student.word_alignment import aligned_rows

_PREFIX = "##"
_ACCENTED = "àáâãäåçèéêëìíîïñòóôõöùúûüýÿÀÁÂÃÄÅÇÈÉÊËÌÍÎÏÑÒÓÔÕÖÙÚÛÜÝŸ"
"""Letters of Latin-1 that are another letter with an accent."""


def assistant_from_teacher(
    teacher: SentenceTransformer,
    config: VocabularyConfig,
    translations: Callable[[], Iterable[str]],
    pairs: Callable[[], Iterable[tuple[str, str]]],
) -> SentenceTransformer:
    """Give a copy of the teacher a vocabulary learned from the pairs.

    Args:
        teacher: A sentence encoder with a fast tokenizer; it is left as it is.
        config: Size of the vocabulary and how its rows start.
        translations: Gives the sentences that are not in the teacher's language.
        pairs: Gives all (source, translation) pairs.

    Raises:
        UserError: The teacher's tokenizer does not fit ``config``.
    """
    old = teacher.tokenizer
    if not old.is_fast:
        raise UserError("assistant.vocabulary: the teacher has no fast tokenizer (tokenizer.json)")
    wordpiece = _is_wordpiece(old)
    if config.keep_teacher and not wordpiece:
        raise UserError(
            "assistant.vocabulary.keep_teacher=true needs a WordPiece teacher; use "
            "assistant.vocabulary.keep_teacher=false"
        )
    texts = translations() if config.keep_teacher else (text for pair in pairs() for text in pair)
    if wordpiece:
        new = _learned_wordpiece(old, config.size, texts, keep=config.keep_teacher)
    else:
        new = old.train_new_from_iterator(texts, vocab_size=config.size)
    assistant: Any = copy.deepcopy(teacher)
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
    assistant[0].processor = new
    return assistant


def subword_rows(
    table: Tensor, old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase
) -> Tensor:
    """Rows ``(new vocabulary, d)`` from the teacher's.

    A piece that stays keeps its row; a new one gets the mean of the old pieces that spell it, or
    that spell it without accents.
    """
    vocabulary = old.get_vocab()
    wordpiece = _is_wordpiece(old)
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


def _is_wordpiece(tokenizer: PreTrainedTokenizerBase) -> bool:
    return bool(json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"] == "WordPiece")


def _learned_wordpiece(
    old: PreTrainedTokenizerBase, size: int, texts: Iterable[str], *, keep: bool
) -> PreTrainedTokenizerBase:
    """A vocabulary learned from texts, after the old one, ids unchanged, or instead of it.

    Where the old one is kept, English goes on being cut as before, but for words that a new piece
    begins and for accented letters. Accents, which uncased BERT models strip, are kept: they tell
    words apart in most languages. The usual accented letters have a piece in any case; without
    one a word such as café would be unknown.
    """
    state = json.loads(old.backend_tokenizer.to_str())
    state["normalizer"] = _keeping_accents(state["normalizer"])
    keeps_accents = reload(old, state)
    normalizer = keeps_accents.backend_tokenizer.normalizer
    normalise = normalizer.normalize_str if normalizer else str
    texts = list(texts)
    # The trainer numbers continuation characters in the random order of a hash map, and ties
    # between merges go by number: named in advance, they make training reproducible.
    characters = {c for text in texts for c in normalise(text) if not c.isspace()}
    learned = keeps_accents.train_new_from_iterator(
        texts,
        vocab_size=size,
        new_special_tokens=sorted(_PREFIX + c for c in characters),
        show_progress=False,
    )
    vocabulary = state["model"]["vocab"] if keep else {}
    if not keep:  # [CLS] and [SEP] have other ids
        state["post_processor"] = json.loads(learned.backend_tokenizer.to_str())["post_processor"]
    letters = sorted({normalise(letter) for letter in _ACCENTED})
    pieces = sorted(learned.get_vocab(), key=learned.get_vocab().__getitem__)
    for piece in [*pieces, *letters, *(_PREFIX + letter for letter in letters)]:
        vocabulary.setdefault(piece, len(vocabulary))
    state["model"]["vocab"] = vocabulary
    return reload(old, state)


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


def reload(old: PreTrainedTokenizerBase, state: dict[str, object]) -> PreTrainedTokenizerBase:
    """A tokenizer with a changed state and the old one's special tokens."""
    from transformers import PreTrainedTokenizerFast

    roles = ("unk", "sep", "pad", "cls", "mask", "bos", "eos")
    tokens = {f"{r}_token": getattr(old, f"{r}_token", None) for r in roles}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_max_length=old.model_max_length,
        **{role: token for role, token in tokens.items() if token is not None},
    )


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def _spell(piece: str, vocabulary: dict[str, int]) -> Sequence[int]:
    """Old WordPiece ids that spell a new piece: longest match first, as the tokenizer does."""
    inside = piece.startswith(_PREFIX)
    rest = piece.removeprefix(_PREFIX)
    ids = []
    while rest:
        prefix = _PREFIX if inside else ""
        for end in range(len(rest), 0, -1):
            index = vocabulary.get(prefix + rest[:end])
            if index is not None:
                ids.append(index)
                break
        else:
            end = 1  # a character that the teacher does not know
        rest, inside = rest[end:], True
    return ids
