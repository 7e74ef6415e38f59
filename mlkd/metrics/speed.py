"""Speed of an encoder: sentences a second and latency of one sentence.

Times depend on the machine and its load: compare only what was measured in one run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

LATENCY_SENTENCES = 100
"""Single sentences that are timed; a p95 needs some dozens, more only takes time."""


def throughput(
    encode: Callable[[Sequence[str]], Any],
    sentences: Sequence[str],
    batch_size: int,
    repeats: int = 3,
) -> float:
    """Sentences a second, median of some passes after an untimed one.

    Args:
        encode: Turns a list of sentences into vectors and returns when they are there.
        sentences: What is encoded.
        batch_size: Sentences a call.
        repeats: Timed passes over the sentences.
    """
    if not sentences or batch_size < 1 or repeats < 1:
        raise ValueError("throughput needs sentences, batch_size >= 1 and repeats >= 1")
    # By length, as sentence-transformers batches: little padding, largest batch met first.
    ordered = sorted(sentences, key=len, reverse=True)
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]

    def passed() -> float:
        start = perf_counter()
        for batch in batches:
            encode(batch)
        return perf_counter() - start

    passed()
    return len(sentences) / median(passed() for _ in range(repeats))


def latency(encode: Callable[[Sequence[str]], Any], sentences: Sequence[str]) -> dict[str, float]:
    """Milliseconds of a call with one sentence, over the first sentences: ``p50`` and ``p95``."""
    if not sentences:
        raise ValueError("latency needs sentences")
    encode([sentences[0]])
    taken = []
    for sentence in sentences[:LATENCY_SENTENCES]:
        start = perf_counter()
        encode([sentence])
        taken.append(1000 * (perf_counter() - start))
    p50, p95 = np.percentile(taken, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}
