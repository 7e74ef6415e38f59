"""The student before its first stage, as a configuration has it start."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from mlkd.config.schema import TrainConfig
from mlkd.data.pairs import PairStore
from mlkd.data.tokens import tokenise
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder
from mlkd.student.initialise import build_student
from mlkd.student.narrow import narrowed
from mlkd.student.trim import language_counts, pieces_to_keep, trimmed


def new_student(
    config: TrainConfig, source: Path, pairs: PairStore, cache: Path
) -> SentenceTransformer:
    """Trim, narrow and copy an encoder.

    Args:
        config: Shape and start of the student.
        source: Folder of the assistant, before or after its training.
        pairs: Their text, that of held-out pairs too: which pieces it has and how often decides
            the word table, what its sentences activate the narrow layers.
        cache: Folder of recomputable files.
    """
    encoder, max_tokens = load_folder(source), config.data.max_tokens
    tokens = tokenise(pairs, encoder.tokenizer, max_tokens, cache)
    if config.student.trim is not None:
        counts = language_counts(pairs, tokens, backbone_of(encoder).config.vocab_size)
        encoder = trimmed(encoder, pieces_to_keep(encoder, counts, config.student.trim))
        tokens = tokenise(pairs, encoder.tokenizer, max_tokens, cache)
    if config.student.intermediate is not None and config.init.source != "scratch":
        encoder = narrowed(encoder, tokens, config.student.intermediate)
    frequency = torch.from_numpy(tokens.frequency(backbone_of(encoder).config.vocab_size))
    torch.manual_seed(config.seed)
    return build_student(encoder, config.student, config.init, frequency, max_tokens)
