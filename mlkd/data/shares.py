"""A share of the training rows, the same for every link that trains on them."""

from __future__ import annotations

import numpy as np

from mlkd.data.store import PairStore


def share(pairs: PairStore, rows: np.ndarray, fraction: float) -> np.ndarray:
    """Some rows ``(m,)`` of others; a smaller share is part of a larger one.

    Of pairs it is the share of the source sentences. Of a classification it is that of the texts of
    each label in each corpus, one at least, so that few examples are of all classes.

    Args:
        pairs: The pair store.
        rows: Indices ``(n,)``.
        fraction: From 0 to 1.
    """
    if fraction == 1.0:
        return rows
    order = np.random.default_rng(0).permutation(pairs.n_sentences)[pairs.source[rows]]
    if pairs.value is None or pairs.task is None or pairs.task.kind != "classification":
        drawn: np.ndarray = rows[order < fraction * pairs.n_sentences]
        return drawn
    kind = np.stack([pairs.group[rows], pairs.value[rows]], axis=1)
    found, label = np.unique(kind, axis=0, return_inverse=True)
    parts = [np.flatnonzero(label.ravel() == number) for number in range(len(found))]
    chosen = [part[np.argsort(order[part])][: max(1, round(fraction * len(part)))]
              for part in parts]  # fmt: skip
    return rows[np.sort(np.concatenate(chosen))]
