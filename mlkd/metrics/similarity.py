"""Semantic textual similarity: correlation of cosines with gold scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def unit(vectors: Array) -> NDArray[np.float64]:
    """Vectors (N, d) at length 1 in float64; a zero or non-finite vector becomes zero.

    A zero vector has cosine 0 with everything, so an encoder that fails on some sentences gets
    a low score instead of breaking the evaluation.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    vectors = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0.0)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float64] = vectors / np.where(length > 0, length, 1.0)
    return scaled


def cosines(left: Array, right: Array) -> NDArray[np.float64]:
    """Cosine of row i of ``left`` with row i of ``right``: (N, d), (N, d) -> (N,)."""
    # Equal vectors differ from cosine 1 in the last bits; unrounded, these bits would rank them.
    cosine: NDArray[np.float64] = np.einsum("nd,nd->n", unit(left), unit(right))
    return cosine.round(12)


def sts_scores(
    left: Array, right: Array, gold: NDArray[np.float64], *, bootstrap: int, seed: int = 0
) -> dict[str, float | int | None]:
    """Correlation of the cosines of N sentence pairs with their gold scores.

    Args:
        left: (N, d) vectors of the first sentences.
        right: (N, d) vectors of the second sentences.
        gold: (N,) gold similarities on any scale.
        bootstrap: Resamples of the interval; 0 = no interval.
        seed: Seed of the resamples.

    Returns:
        ``spearman`` and ``pearson`` ×100, ``low`` and ``high`` (95 % percentile bootstrap of
        ``spearman``, None without resamples) and ``n``. Where a side is constant a correlation
        is undefined; it counts as 0, the score of an encoder that knows nothing.
    """
    cosine = cosines(left, right)
    low = high = None
    if bootstrap:
        draws = np.random.default_rng(seed).integers(len(gold), size=(bootstrap, len(gold)))
        resampled = 100 * _spearman(cosine[draws], gold[draws])
        low, high = (float(value) for value in np.percentile(resampled, [2.5, 97.5]))
    return {
        "spearman": 100 * float(_spearman(cosine[None], gold[None])[0]),
        "pearson": 100 * float(_pearson(cosine[None], gold[None])[0]),
        "low": low,
        "high": high,
        "n": len(gold),
    }


def _spearman(first: Array, second: Array) -> NDArray[np.float64]:
    """Rank correlation of each row, ties at their average rank: (B, N), (B, N) -> (B,)."""
    from scipy.stats import rankdata  # a second to import, and tables are printed without it

    return _pearson(rankdata(first, axis=1), rankdata(second, axis=1))


def _pearson(first: Array, second: Array) -> NDArray[np.float64]:
    """Linear correlation of each row, 0 where one is constant: (B, N), (B, N) -> (B,)."""
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    covariance = (first * second).sum(axis=1)
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    correlation: NDArray[np.float64] = np.where(scale > 1e-12, covariance, 0.0)
    return correlation / np.where(scale > 1e-12, scale, 1.0)
