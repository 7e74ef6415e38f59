"""A training contest: the peer and a stage of mlkd on the same pairs, from the same weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from mlkd.bench.contest import Contestant, TableLine, Turn, compete
from mlkd.bench.peer import peer_data, run_peer
from mlkd.bench.stage import Lesson, device, one_stage, run_stage
from mlkd.config.bench import BenchmarkConfig
from mlkd.config.languages import split_pair
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.machine.hardware import resolve_precision
from mlkd.recipes.chain import Chain, open_chain
from mlkd.storage.files import digest, encoder_fingerprint
from mlkd.targets.cache import compute_targets

PEER = "sentence-transformers as it comes"
"""In fp32 and with the dropout of the model's configuration."""


def with_languages(config: BenchmarkConfig, number: int, *wanted: str) -> BenchmarkConfig:
    """The configuration with some translation languages: the wanted ones, or the first it has."""
    offered = sorted({x for corpus in config.data.corpora.values() for x in corpus.targets})
    found = [x for x in wanted if x in offered]
    chosen = (found + [x for x in offered if x not in found])[:number]
    known = {*(corpus.source for corpus in config.data.corpora.values()), *chosen}
    sets = {}
    for name, entry in config.eval.sets.items():
        languages = [x for x in entry.languages if x in known]
        pairs = entry.pairs and [x for x in entry.pairs if known.issuperset(split_pair(x))]
        if languages if pairs is None else pairs:
            sets[name] = entry.model_copy(update={"languages": languages, "pairs": pairs})
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"languages": chosen}),
            "eval": config.eval.model_copy(update={"sets": sets}),
        }
    )


def open_for_training(config: BenchmarkConfig) -> Chain:
    """Data and assistant of a case, from the caches where they are there."""
    settings = config.benchmark
    return open_chain(one_stage(config, settings.batch_size, settings.steps))


def contest(config: BenchmarkConfig, chain: Chain, model: Path) -> list[TableLine]:
    """Let the peer and the assistant stage train copies of an encoder, each in its precisions."""
    settings = config.benchmark
    lesson = Lesson(chain.config, chain, model, settings.clock)
    place = device(chain.config)
    best = resolve_precision(config.trainer.precision, place)
    precisions = ["fp32"] if best == "fp32" else ["fp32", best]
    pairs = run_stage(lesson, best).pairs.ravel()
    data = peer_data(lesson, pairs, teacher_vectors(lesson, pairs))

    def peer(precision: str, dropout: float | None = 0.0) -> Turn:
        return run_peer(lesson, data, precision, dropout=dropout).turn

    def ours(precision: str) -> Turn:
        return run_stage(lesson, precision).turn

    contestants = [Contestant(PEER, "fp32", partial(peer, "fp32", None))]
    for x in precisions:
        contestants.append(Contestant(f"sentence-transformers, {x}", x, partial(peer, x)))
        contestants.append(Contestant(f"mlkd, {x}", x, partial(ours, x)))
    lines = compete(contestants, turns=settings.turns, device=place, clock=settings.clock)
    equal = {x["precision"]: x for x in lines if x["name"].startswith("sentence-transformers,")}
    return [
        line
        | {
            "ratio": line["pairs_per_s"] / lines[0]["pairs_per_s"],
            "equal_ratio": line["pairs_per_s"] / equal[line["precision"]]["pairs_per_s"],
        }
        for line in lines
    ]


def teacher_vectors(lesson: Lesson, pairs: np.ndarray) -> np.ndarray:
    """Teacher vectors ``(n, d)`` of the sources of some pairs."""
    chain = lesson.chain
    trainer, data = lesson.config.trainer, lesson.config.data
    encoder = FrozenEncoder.open(
        chain.teacher,
        max_tokens=data.max_tokens,
        accelerator=trainer.accelerator,
        precision="fp32",
    )
    store = chain.pairs
    sources = store.source[pairs].astype(np.int64)
    targets = compute_targets(
        encoder, store.texts, np.unique(sources), store.n_sentences, chain.cache, "teacher"
    )
    return targets.vectors(sources)


def derived(chain: Chain, name: str, *key: object) -> Path:
    """Cache folder of an encoder that a case makes from the chain's assistant."""
    return (
        chain.cache / f"benchmark-{name}-{digest([encoder_fingerprint(chain.given['base']), *key])}"
    )
