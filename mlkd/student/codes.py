"""Codes of a word table: the centroids of its parts, and the one that each row is nearest to."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor

from mlkd.encoders.coded import CENTROIDS, CodedEmbedding
from mlkd.output.progress import progress

_ROUNDS = 25


@torch.no_grad()
def fit_codes(coded: CodedEmbedding, table: Tensor, weight: Tensor, seed: int) -> None:
    """Set codes and centroids to approximate a full word table, part by part, with k-means.

    A part with no more than 256 different values is kept as it is.

    Args:
        coded: Changed in place.
        table: ``(vocabulary, hidden)``.
        weight: How much each row counts in the squared error, positive, ``(vocabulary,)``.
        seed: Of the first centroids.
    """
    parts = coded.codes.shape[1]
    cut = table.unflatten(1, (parts, -1)).float().numpy()
    counts = weight.double().numpy()
    bar = progress("code words", total=parts, unit=" parts")
    for part in range(parts):
        centroids, codes = _cluster(cut[:, part], counts, seed + part)
        coded.centroids[part, : len(centroids)] = torch.from_numpy(centroids)
        coded.codes[:, part] = torch.from_numpy(codes.astype(np.uint8))
        bar.update()
    bar.close()


def _cluster(
    values: NDArray[np.float32], weight: NDArray[np.float64], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """At most 256 centroids ``(c, w)`` and the number of each row's own ``(n,)``."""
    different, which = np.unique(values, axis=0, return_inverse=True)
    if len(different) <= CENTROIDS:
        return different, which.reshape(-1)
    total = np.bincount(which.reshape(-1), weight, len(different))
    found = KMeans(CENTROIDS, n_init=1, max_iter=_ROUNDS, random_state=seed)
    found.fit(different, sample_weight=total)
    return found.cluster_centers_.astype(np.float32), found.labels_[which.reshape(-1)]
