"""New word vectors from translations: a piece starts as what it is translated with.

IBM model 1 (Brown et al., 1993) finds, for each new piece, the English pieces it goes with in the
parallel pairs; its row becomes their weighted mean. The idea of transferring a word table through
bilingual correspondence follows WECHSEL (Minixhofer et al., NAACL 2022).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

_ITERATIONS = 5
_PRIOR = 1.0
"""Weight of the spelled row, in expected occurrences: rare pieces stay close to it."""


def aligned_rows(
    rows: Tensor,
    fresh: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Iterable[tuple[str, str]],
) -> Tensor:
    """Replace rows of new pieces by the mean of the English rows they are translated with.

    Args:
        rows: Start rows ``(V, d)``.
        fresh: Which pieces are new ``(V,)``; the others keep their row.
        tokenizer: Cuts both sides.
        pairs: (English, translation) sentences. All are held in memory, about 10 kB a pair.

    Returns:
        Rows ``(V, d)``.
    """
    from scipy.sparse import coo_matrix

    english, foreign, owner = _cells(tokenizer, pairs)
    size = len(rows)
    # One parameter t(english | foreign) a distinct cell; E-step and M-step are sums over cells.
    cell, inverse = np.unique(english.astype(np.int64) * size + foreign, return_inverse=True)
    cell_foreign = cell % size
    # For every English token of a pair: which foreign token of that pair explains it?
    probability = np.ones(len(cell))
    for _ in range(_ITERATIONS):
        weight = probability[inverse]
        total = np.bincount(owner, weight)
        count = np.bincount(inverse, weight / total[owner])
        mass = np.bincount(cell_foreign, count, minlength=size)
        probability = count / mass[cell_foreign]
    counts = coo_matrix((count, (cell_foreign, cell // size)), shape=(size, size)).tocsr()
    mass = np.asarray(counts.sum(1)).ravel()
    old = rows.numpy()
    mixed = (counts @ old + _PRIOR * old) / (mass + _PRIOR)[:, None]
    # A mean is shorter than what it averages: give it back the length of the spelled row.
    length = np.linalg.norm(old, axis=1) / np.maximum(np.linalg.norm(mixed, axis=1), 1e-9)
    result = torch.from_numpy((mixed * length[:, None]).astype(np.float32))
    return torch.where(fresh[:, None], result, rows)


def _cells(
    tokenizer: PreTrainedTokenizerBase, pairs: Iterable[tuple[str, str]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All (English token, foreign token) cells of all pairs, and the English token they explain.

    Returns:
        English piece, foreign piece and running number of the English token, each ``(cells,)``.
    """
    english, foreign, owner, tokens = [], [], [], 0
    for source, translation in pairs:
        left = tokenizer(source, add_special_tokens=False)["input_ids"]
        right = tokenizer(translation, add_special_tokens=False)["input_ids"]
        if not left or not right:
            continue
        english.append(np.repeat(np.array(left, np.int32), len(right)))
        foreign.append(np.tile(np.array(right, np.int32), len(left)))
        owner.append(tokens + np.repeat(np.arange(len(left)), len(right)))
        tokens += len(left)
    return np.concatenate(english), np.concatenate(foreign), np.concatenate(owner)
