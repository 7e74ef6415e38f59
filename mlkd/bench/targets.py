"""Case: target vectors, beside ``SentenceTransformer.encode`` at its best batch size."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from mlkd.bench.contest import Contestant, TableLine, Turn, against, compete
from mlkd.bench.machine import clock_seconds, synchronize
from mlkd.bench.stage import device, operations_a_token
from mlkd.bench.training import open_for_training, with_languages
from mlkd.config.bench import BenchmarkConfig
from mlkd.encoders.folder import load_folder
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.machine.hardware import autocast, resolve_precision

_SIZES = {"cpu": (8, 16, 32, 64, 128), "cuda": (64, 128, 256, 512, 1024)}
"""Batch sizes that the peer may choose from."""


def measure(config: BenchmarkConfig) -> list[TableLine]:
    """The teacher encodes distinct English sentences of the corpus."""
    settings = config.benchmark
    chain = open_for_training(with_languages(config, 1, "de"))
    place = device(chain.config)
    sources = np.unique(chain.pairs.source)
    drawn = np.random.default_rng(0).permutation(sources)[: settings.sentences]
    texts = chain.pairs.texts(drawn)
    best = resolve_precision(config.trainer.precision, place)
    peer = load_folder(chain.teacher).to(place)
    peer.max_seq_length = chain.config.data.max_tokens
    cut = peer.tokenizer(texts, truncation=True, max_length=peer.max_seq_length)
    lengths = [len(ids) for ids in cut["input_ids"]]
    work = operations_a_token(peer) / 3 * sum(lengths)  # forward only

    def turn(encode: Any) -> Turn:
        synchronize(place)
        start = clock_seconds(settings.clock)
        encode(texts)
        synchronize(place)
        taken = clock_seconds(settings.clock) - start
        return Turn(taken, len(texts), sum(lengths), sum(lengths), work)

    def peer_encode(precision: str, size: int, texts: list[str]) -> None:
        with autocast(precision, place):
            peer.encode(texts, batch_size=size, show_progress_bar=False)

    contestants = []
    for precision in ["fp32"] if best == "fp32" else ["fp32", best]:
        sizes = _SIZES[place.type]
        times = {size: turn(partial(peer_encode, precision, size)).seconds for size in sizes}
        size = min(times, key=times.__getitem__)
        encoder = FrozenEncoder.open(
            chain.teacher,
            max_tokens=chain.config.data.max_tokens,
            accelerator=chain.config.trainer.accelerator,
            precision=precision,
        ).loaded()
        contestants += [
            Contestant(
                f"SentenceTransformer.encode, {precision}, batch size {size}",
                precision,
                partial(turn, partial(peer_encode, precision, size)),
            ),
            Contestant(f"mlkd, {precision}", precision, partial(turn, encoder.encode)),
        ]
    lines = compete(contestants, turns=settings.turns, device=place, clock=settings.clock)
    for line in lines:
        del line["padding"]  # neither says what it padded
    return against(lines, lines[0]["name"], "sentences_per_s")
