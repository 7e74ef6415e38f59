"""Speed of an encoder: sentences a second and latency of one sentence.

Times depend on the machine and its load: compare only what was measured in one run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from mlkd.output.progress import progress

LATENCY_SENTENCES = 100
"""Single sentences that are timed; a p95 needs some dozens, more only takes time."""

SETTLE_SECONDS = 0.01
"""Untimed calls before a timed one: idle threads of the encoder before spin for milliseconds."""


def race(
    encoders: Mapping[str, Callable[[Sequence[str]], Any]],
    sentences: Sequence[str],
    batch_size: int,
    passes: int = 5,
) -> dict[str, dict[str, Any]]:
    """Time encoders that take turns at every batch and sentence, so that load hits all alike.

    Each call comes after untimed ones with a sentence (:data:`SETTLE_SECONDS`).

    Args:
        encoders: By name, what turns a list of sentences into vectors.
        sentences: What each of them encodes.
        batch_size: Sentences a call, for the throughput.
        passes: Timed passes over the sentences, after an untimed one.

    Returns:
        By name ``sentences_per_s`` (median of the passes) and ``latency_ms`` of a call with one
        sentence (``p50``, ``p95``).
    """
    if not sentences or batch_size < 1 or passes < 1:
        raise ValueError("a race needs sentences, batch_size >= 1 and passes >= 1")
    # By length, as sentence-transformers batches: little padding, largest batch met first.
    ordered = sorted(sentences, key=len, reverse=True)
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    single = [[sentence] for sentence in sentences[:LATENCY_SENTENCES]]
    total = (1 + passes) * len(batches) + len(single)
    bar = progress("measure speed", total=total, unit=" calls")

    def turns(calls: Sequence[Sequence[str]]) -> dict[str, list[float]]:
        taken: dict[str, list[float]] = {name: [] for name in encoders}
        for call in calls:
            for name, encode in encoders.items():
                until = perf_counter() + SETTLE_SECONDS
                encode(call[:1])
                while perf_counter() < until:
                    encode(call[:1])
                start = perf_counter()
                encode(call)
                taken[name].append(perf_counter() - start)
            bar.update()
        return taken

    turns(batches)
    rounds = [turns(batches) for _ in range(passes)]
    alone = turns(single)
    bar.close()
    result = {}
    for name in encoders:
        p50, p95 = np.percentile(alone[name], [50, 95])
        result[name] = {
            "sentences_per_s": len(sentences) / median(sum(taken[name]) for taken in rounds),
            "latency_ms": {"p50": 1000 * float(p50), "p95": 1000 * float(p95)},
        }
    return result
