"""Bitext retrieval: is the nearest neighbour of a sentence its own translation?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlkd.metrics.similarity import Array, unit


def retrieval(
    left: Array,
    right: Array,
    chunk: int = 1024,
    *,
    sentences: tuple[Sequence[str], Sequence[str]],
) -> dict[str, float | int]:
    """Share of sentences whose nearest neighbour by cosine is their translation.

    A sentence that occurs twice, on either side, has all translations of it as right answers,
    which is why the sentences are needed. Equal vectors are no substitute: an encoder that maps
    everything to one point would be right everywhere. Among equally near neighbours the first one
    counts, so such an encoder scores 100 / N; zero and non-finite vectors find nothing.

    Args:
        left: (N, d) vectors.
        right: (N, d) vectors; row i translates row i of ``left``.
        chunk: Rows of ``left`` compared at a time; memory grows with chunk × N.
        sentences: The N sentences of ``left`` and of ``right``.

    Returns:
        Accuracies ×100 ``forward`` (left finds right), ``backward`` and their ``mean``, and ``n``.
    """
    first, second = unit(left), unit(right)
    count = len(first)
    nearest_right = np.zeros(count, dtype=np.int64)
    nearest_left = np.zeros(count, dtype=np.int64)
    best = np.full(count, -np.inf)
    for start in range(0, count, chunk):
        similarity = first[start : start + chunk] @ second.T
        nearest_right[start : start + chunk] = similarity.argmax(axis=1)
        here = similarity.argmax(axis=0)
        value = similarity[here, np.arange(count)]
        better = value > best
        nearest_left[better] = here[better] + start
        best[better] = value[better]
    forward = _accuracy(first, nearest_right, *sentences)
    backward = _accuracy(second, nearest_left, *sentences[::-1])
    return {
        "forward": forward,
        "backward": backward,
        "mean": (forward + backward) / 2,
        "n": count,
    }


def _accuracy(
    vectors: Array, nearest: NDArray[np.int64], queries: Sequence[str], searched: Sequence[str]
) -> float:
    """×100, for the queries' unit vectors (N, d) and the index (N,) of what each of them found."""
    pairs = set(zip(queries, searched, strict=True))
    found = zip(queries, (searched[i] for i in nearest), strict=True)
    right = np.fromiter((pair in pairs for pair in found), dtype=bool)
    return 100 * float((right & vectors.any(axis=1)).mean())
