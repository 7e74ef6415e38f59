"""What a stage reads: its batches, its dev pairs, and the target vectors of their sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlkd.config.schema import StageName, TrainConfig
from mlkd.data.pairs import PairStore
from mlkd.data.plan import BatchPlan, MixedPlan
from mlkd.data.tokens import TokenStore
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.output.errors import UserError
from mlkd.stages import STAGES
from mlkd.targets.cache import Targets, compute_targets

_CHUNK = 1 << 18


def batch_plan(
    config: TrainConfig, pairs: PairStore, tokens: TokenStore, name: StageName
) -> tuple[BatchPlan, int]:
    """Batches of a stage and the number of its steps."""
    data, settings = config.data, config.stages[name]
    train = _share(pairs, name, settings.fraction)
    plan = MixedPlan(
        train,
        np.asarray(pairs.group[train]),
        _longer_side(pairs, tokens, train),
        batch_size=settings.batch_size,
        mixing=data.mixing,
        temperature=data.temperature,
        seed=config.seed_of(name),
    )
    if plan.part % config.trainer.processes:
        raise UserError(
            f"stages.{name}: a batch of {plan.batch_size} pairs, all that there are, cannot be "
            f"shared evenly by {config.trainer.processes} processes"
        )
    steps = max(1, round(settings.epochs * plan.steps_per_epoch))
    return plan, min(steps, settings.max_steps or steps)


def dev_pairs(config: TrainConfig, pairs: PairStore, tokens: TokenStore) -> np.ndarray:
    """Held-out pairs that select: a random part, the same for every run, sorted by length."""
    dev = np.random.default_rng(0).permutation(pairs.dev_pairs())
    dev = dev[: config.data.max_dev_pairs]
    return dev[np.argsort(_longer_side(pairs, tokens, dev), kind="stable")]


def target_sentences(pairs: PairStore, name: StageName, *used: np.ndarray) -> np.ndarray:
    """Sentences ``(n,)`` whose vectors a stage asks for when it meets some pairs."""
    wanted = np.zeros(pairs.n_sentences, bool)
    for part in used:
        wanted[pairs.source[part]] = True
        if STAGES[name].translation_target == "translation":
            wanted[pairs.translation[part]] = True
    return np.flatnonzero(wanted).astype(np.uint32)


def target_vectors(
    config: TrainConfig,
    pairs: PairStore,
    cache: Path,
    encoders: dict[str, Path],
    name: StageName,
    sentences: np.ndarray,
) -> Targets:
    """Vectors of sentences by the target encoder of a stage, from the cache where they are known.

    Args:
        config: Precision and length limit of the encoder.
        pairs: The sentences.
        cache: Folder of all caches.
        encoders: Folders of ``teacher`` and ``assistant``.
        name: The stage.
        sentences: Sentence indices ``(n,)``, distinct.
    """
    kind = STAGES[name].target_encoder
    encoder = FrozenEncoder.open(
        encoders[kind.removesuffix("_embeddings")],
        max_tokens=config.data.max_tokens,
        accelerator=config.trainer.accelerator,
        precision=config.trainer.precision,
        embeddings_only=kind == "assistant_embeddings",
    )
    label = kind.replace("_", " ")
    return compute_targets(encoder, pairs.texts, sentences, pairs.n_sentences, cache, label)


def _share(pairs: PairStore, name: StageName, fraction: float) -> np.ndarray:
    """Training pairs of a share of the source sentences; a smaller share is part of a larger."""
    train = pairs.train_pairs()
    if fraction == 1.0:
        return train
    rank = np.random.default_rng(0).permutation(pairs.n_sentences)
    drawn = rank[pairs.source[train]] < fraction * pairs.n_sentences
    if not drawn.any():
        raise UserError(f"stages.{name}.fraction={fraction}: no pair is left of {len(train)}")
    share: np.ndarray = train[drawn]
    return share


def _longer_side(pairs: PairStore, tokens: TokenStore, which: np.ndarray) -> np.ndarray:
    """Tokens of the longer side of each pair, looked up in chunks to save memory."""
    longer = np.empty(len(which), np.uint16)
    for start in range(0, len(which), _CHUNK):
        part = which[start : start + _CHUNK]
        sides = [side[part].astype(np.int64) for side in (pairs.source, pairs.translation)]
        one, other = (tokens.offsets[side + 1] - tokens.offsets[side] for side in sides)
        longer[start : start + _CHUNK] = np.maximum(one, other)
    return longer
