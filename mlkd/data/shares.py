"""A share of the training rows, drawn by hash: the same for every link that trains on them."""

from __future__ import annotations

import numpy as np

from mlkd.data.cleaning import hash64, normal_form
from mlkd.data.store import PairStore
from mlkd.output.progress import progress

_FORMAT = 2


def decides(fraction: float) -> dict[str, int]:
    """What a share adds to what decides a link's result; nothing where it is the whole."""
    return {} if fraction == 1.0 else {"share": _FORMAT}


def share(pairs: PairStore, fraction: float) -> np.ndarray:
    """Some training rows ``(m,)``; a smaller share is part of a larger one.

    It is of those whose texts have the smallest hashes, another hash than that of
    ``data.fraction``, so that a share of what that leaves is one. Of pairs it is the share of the
    source sentences, about. Of a classification it is that of the texts of each label in each
    corpus, one at least, so that few examples are of all classes.

    Args:
        pairs: The pair store.
        fraction: From 0 to 1.
    """
    rows = pairs.train_pairs()
    if fraction == 1.0:
        return rows
    sources, place = np.unique(pairs.source[rows], return_inverse=True)
    hashes = np.empty(len(sources), np.uint64)
    with progress("share", total=len(sources), unit=" sentences") as bar:
        for number, source in enumerate(sources):
            hashes[number] = hash64(normal_form(pairs.text(source)).encode(), b"share")
            bar.update()
    order = hashes[place.ravel()]
    if pairs.value is None or pairs.task is None or pairs.task.kind != "classification":
        found: np.ndarray = rows[order < np.uint64(fraction * 2**64)]
        return found
    kind = np.stack([pairs.group[rows], pairs.value[rows]], axis=1)
    kinds, label = np.unique(kind, axis=0, return_inverse=True)
    parts = [np.flatnonzero(label.ravel() == number) for number in range(len(kinds))]
    chosen = [part[np.argsort(order[part], kind="stable")][: max(1, round(fraction * len(part)))]
              for part in parts]  # fmt: skip
    return rows[np.sort(np.concatenate(chosen))]
