"""Vocabulary trimming as a part of an export, with its own comparison."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from mlkd.config.commands import ExportConfig
from mlkd.config.inputs import DataConfig
from mlkd.config.student import TrimConfig
from mlkd.data.pairs import prepare_pairs
from mlkd.data.store import PairStore
from mlkd.data.tokens import tokenise
from mlkd.deploy.formats import encoder
from mlkd.deploy.source import Source
from mlkd.encoders.backbone import backbone_of
from mlkd.metrics.sets import EvalSet, set_sentences
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of
from mlkd.student.trim import Mask, is_kept, language_counts, pieces_to_keep, trimmed

log = logging.getLogger(__name__)

_COMPARED = 512
"""Sentences of the corpus whose vectors are compared."""


def trim_vocabulary(
    config: ExportConfig, source: Source, sets: Sequence[EvalSet], model: SentenceTransformer
) -> tuple[SentenceTransformer, dict[str, Any]]:
    """Leave out the pieces that the chosen languages do not use, and compare.

    Args:
        config: What to leave out, and the pairs that say so.
        source: Where the encoder comes from.
        sets: Evaluation sets, whose sentences are not among the pairs.
        model: The encoder.

    Returns:
        The smaller encoder, and a report: ``pieces``, ``kept``, ``compared`` sentences, and by
        language the share of its ``tokens`` that are kept, in %.

    Raises:
        UserError: There is no corpus, or a text whose pieces are all kept has another vector.
    """
    assert config.trim is not None
    data = config.data or source.section("data", DataConfig)
    if data is None:
        raise UserError(
            "trim: a folder without a run does not say what its languages use; give data=<option>"
        )
    with _cache(source) as cache:
        return _trimmed(config.trim, data, set_sentences(sets), model, cache)


@contextmanager
def _cache(source: Source) -> Iterator[Path]:
    """Where pairs and tokens are kept: with the run, or where that may only be read, nowhere."""
    try:
        source.cache.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=source.cache):
            pass
    except OSError as error:
        log.info("%s: %s; the pairs are prepared anew", source.cache, reason_of(error))
        with TemporaryDirectory() as temporary:
            yield Path(temporary)
    else:
        yield source.cache


def _trimmed(
    config: TrimConfig,
    data: DataConfig,
    exclude: Collection[str],
    model: SentenceTransformer,
    cache: Path,
) -> tuple[SentenceTransformer, dict[str, Any]]:
    """See :func:`trim_vocabulary`; pairs and tokens go into ``cache``."""
    pairs = prepare_pairs(data, exclude, cache)
    tokens = tokenise(pairs, model.tokenizer, data.max_tokens, cache)
    counts = language_counts(pairs, tokens, backbone_of(model).config.vocab_size)
    keep = pieces_to_keep(model, counts, config)
    small = trimmed(model, keep)
    languages = config.languages or list(counts)
    report = {
        "pieces": len(keep),
        "kept": int(keep.sum()),
        "compared": _compare(model, small, keep, pairs),
        "tokens": {x: 100 * float(counts[x][keep].sum() / counts[x].sum()) for x in languages},
    }
    log.info("trim: %d of %d pieces stay", report["kept"], report["pieces"])
    return small, report


def _compare(
    model: SentenceTransformer, small: SentenceTransformer, keep: Mask, pairs: PairStore
) -> int:
    """Sentences whose pieces are all kept; their vectors are the same, bit by bit."""
    drawn = np.random.default_rng(0).permutation(pairs.n_sentences)[:_COMPARED]
    texts = pairs.texts(np.sort(drawn))
    kept = is_kept(model.tokenizer, keep, texts)
    texts = [text for text, whole in zip(texts, kept, strict=True) if whole]
    if not texts:
        raise UserError("trim.min_share: no sentence of the pairs is left whole; use a smaller one")
    before, after = encoder(model)(texts), encoder(small)(texts)
    if not np.array_equal(before, after):
        difference = np.abs(before - after).max()
        raise UserError(
            f"trim: vectors of sentences whose pieces are kept differ by up to {difference:.2g}; "
            "nothing was written"
        )
    return len(texts)
