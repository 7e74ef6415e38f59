"""The student before its first stage, as a configuration has it start."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from mlkd.config.student import InitConfig, StudentConfig
from mlkd.data.store import PairStore
from mlkd.data.tokens import tokenise
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder
from mlkd.student.initialise import build_student
from mlkd.student.narrow import narrowed
from mlkd.student.trim import language_counts, pieces_to_keep, trimmed


def new_student(
    source: Path,
    size: StudentConfig,
    init: InitConfig,
    seed: int,
    max_tokens: int,
    pairs: PairStore,
    cache: Path,
) -> SentenceTransformer:
    """Trim, narrow and copy an encoder.

    Args:
        source: Folder of the assistant, before or after its training.
        size: Shape of the student.
        init: What it copies.
        seed: Decides what is random.
        max_tokens: Longer inputs are cut.
        pairs: Their text, that of held-out pairs too: which pieces it has and how often decides
            the word table, what its sentences activate the narrow layers.
        cache: Folder of recomputable files.
    """
    encoder = load_folder(source)
    tokens = tokenise(pairs, encoder.tokenizer, max_tokens, cache)
    if size.trim is not None:
        counts = language_counts(pairs, tokens, backbone_of(encoder).config.vocab_size)
        encoder = trimmed(encoder, pieces_to_keep(encoder, counts, size.trim))
        tokens = tokenise(pairs, encoder.tokenizer, max_tokens, cache)
    if size.intermediate is not None and init.source != "scratch":
        encoder = narrowed(encoder, tokens, size.intermediate)
    frequency = torch.from_numpy(tokens.frequency(backbone_of(encoder).config.vocab_size))
    torch.manual_seed(seed)
    return build_student(encoder, size, init, frequency, max_tokens, seed)
