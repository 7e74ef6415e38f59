"""Tokenizers of encoders: changed ones, and words that are longer than WordPiece reads."""

from __future__ import annotations

import json
from typing import Any

from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_SIDES = ("padding_side", "truncation_side")
"""Which end of a text is filled up, and which is cut; both are the right one by default."""


def reload(old: PreTrainedTokenizerBase, state: dict[str, object]) -> PreTrainedTokenizerBase:
    """A tokenizer with a changed state and the old one's special tokens, sides and inputs."""
    roles = ("unk", "sep", "pad", "cls", "mask", "bos", "eos")
    tokens = {f"{r}_token": getattr(old, f"{r}_token", None) for r in roles}
    new = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        model_max_length=old.model_max_length,
        **{role: token for role, token in tokens.items() if token is not None},
        **{side: getattr(old, side) for side in _SIDES if getattr(old, side) != "right"},
    )
    new.model_input_names = list(old.model_input_names)
    return new


def set_tokenizer(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a sentence-transformers model read with another tokenizer."""
    name = "processor" if hasattr(model[0], "processor") else "tokenizer"
    setattr(model[0], name, tokenizer)


def read_long_words(model: SentenceTransformer) -> SentenceTransformer:
    """The model itself; its WordPiece cuts a word of more than 100 characters after each 100.

    Such a word would be one unknown piece: a whole sentence in Thai, Khmer, Lao or Burmese, which
    are written without spaces. All other words are cut as before.
    """
    tokenizer = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, WordPiece):
        return model
    state = json.loads(backend.to_str())
    longest, before = state["model"]["max_input_chars_per_word"], parts_of(state)
    if not any(_ends_words(part, longest) for part in before):
        state["pre_tokenizer"] = sequence([*before, split(long_word(longest))])
        set_tokenizer(model, reload(tokenizer, state))
    return model


def parts_of(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The pre-tokenisers of a state, one after the other."""
    whole = state["pre_tokenizer"]
    parts = whole["pretokenizers"] if whole and whole["type"] == "Sequence" else [whole]
    return [part for part in parts if part]


def sequence(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The state of some pre-tokenisers one after the other."""
    return {"type": "Sequence", "pretokenizers": parts}


def split(pattern: str) -> dict[str, Any]:
    """The state of a pre-tokeniser that makes each match of a pattern a word."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def pattern_of(part: dict[str, Any]) -> str:
    """The pattern of such a state; empty for others."""
    return str(part["pattern"].get("Regex", "")) if part["type"] == "Split" else ""


def long_word(longest: int) -> str:
    """The pattern that ends a word after so many characters."""
    return f".{{{longest}}}"


def _ends_words(part: dict[str, Any], longest: int) -> bool:
    """Whether it lets no known word be longer, as that of a learned vocabulary does, too."""
    return pattern_of(part).endswith((long_word(longest), f"{{1,{longest}}}"))
