"""An assistant from the teacher: its encoder with a multilingual vocabulary.

The encoder layers stay as they are; the word table gets a row for each new piece, made from the
teacher's own rows, so that stage 1 starts from a model that already reads English.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mlkd.errors import UserError
from mlkd.schema import VocabularyConfig
from mlkd.student.backbone import backbone_of
from mlkd.student.word_alignment import aligned_rows

_PREFIX = "##"


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
    if config.keep_teacher:
        new = _extended_wordpiece(old, config.size, translations())
    else:
        both = (text for pair in pairs() for text in pair)
        new = old.train_new_from_iterator(both, vocab_size=config.size)
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

    A piece that stays keeps its row; a new one gets the mean of the old pieces that spell it.
    """
    vocabulary = old.get_vocab()
    wordpiece = _is_wordpiece(old)
    rows = torch.empty(len(new), table.shape[1])
    for index, piece in enumerate(_pieces(new)):
        if piece in vocabulary:
            spelled: Sequence[int] = [vocabulary[piece]]
        elif wordpiece:
            spelled = _spell(piece, vocabulary)
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


def _extended_wordpiece(
    old: PreTrainedTokenizerBase, size: int, translations: Iterable[str]
) -> PreTrainedTokenizerBase:
    """The old vocabulary, ids unchanged, followed by pieces learned from the translations.

    English goes on being cut as before, but for the rare word that a new piece begins. Accents,
    which uncased BERT models strip, are kept: they tell words apart in most languages.
    """
    if not _is_wordpiece(old):
        raise UserError(
            "assistant.vocabulary.keep_teacher=true needs a WordPiece teacher; use "
            "assistant.vocabulary.keep_teacher=false"
        )
    state = json.loads(old.backend_tokenizer.to_str())
    if (state.get("normalizer") or {}).get("type") == "BertNormalizer":
        state["normalizer"]["strip_accents"] = False
    keeps_accents = reload(old, state)
    texts = list(_without_combining_dot(translations))
    # The trainer numbers continuation characters in the random order of a hash map, and ties
    # between merges go by number: named in advance, they make training reproducible.
    normalise = keeps_accents.backend_tokenizer.normalizer.normalize_str
    characters = {c for text in texts for c in normalise(text) if not c.isspace()}
    learned = keeps_accents.train_new_from_iterator(
        texts,
        vocab_size=size,
        new_special_tokens=sorted(_PREFIX + c for c in characters),
        show_progress=False,
    )
    vocabulary = state["model"]["vocab"]
    for piece in sorted(learned.get_vocab(), key=learned.get_vocab().__getitem__):
        vocabulary.setdefault(piece, len(vocabulary))
    return reload(old, state)


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


def _without_combining_dot(texts: Iterable[str]) -> Iterator[str]:
    """Lower-casing a Turkish İ leaves a combining dot, which no piece should be wasted on."""
    for text in texts:
        yield text.replace("İ", "i")


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
