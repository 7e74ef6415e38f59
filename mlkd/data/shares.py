"""A share of the training rows, drawn by hash: the same for every link that trains on them."""

from __future__ import annotations

import numpy as np

from mlkd.data.cleaning import hash64, normal_form
from mlkd.data.store import PairStore

_FORMAT = 2


def decides(fraction: float) -> dict[str, int]:
    """What a share adds to what decides a link's result; nothing where it is the whole."""
    return {} if fraction == 1.0 else {"share": _FORMAT}


def share(pairs: PairStore, rows: np.ndarray, fraction: float) -> np.ndarray:
    """Some rows ``(m,)`` of others; a smaller share is part of a larger one.

    It is of those whose texts have the smallest hashes, another hash than that of
    ``data.fraction``, so that a share of what that leaves is one. Of pairs it is the share of the
    source sentences, about. Of a classification it is that of the texts of each label in each
    corpus, one at least, so that few examples are of all classes.

    Args:
        pairs: The pair store.
        rows: Indices ``(n,)``.
        fraction: From 0 to 1.
    """
    if fraction == 1.0:
        return rows
    sources, place = np.unique(pairs.source[rows], return_inverse=True)
    forms = (normal_form(pairs.text(source)) for source in sources)
    hashes = (hash64(form.encode(), b"share") for form in forms)
    order = np.fromiter(hashes, np.uint64, len(sources))[place.ravel()]
    if pairs.value is None or pairs.task is None or pairs.task.kind != "classification":
        found: np.ndarray = rows[order < np.uint64(fraction * 2**64)]
        return found
    kind = np.stack([pairs.group[rows], pairs.value[rows]], axis=1)
    kinds, label = np.unique(kind, axis=0, return_inverse=True)
    parts = [np.flatnonzero(label.ravel() == number) for number in range(len(kinds))]
    chosen = [part[np.argsort(order[part], kind="stable")][: max(1, round(fraction * len(part)))]
              for part in parts]  # fmt: skip
    return rows[np.sort(np.concatenate(chosen))]
