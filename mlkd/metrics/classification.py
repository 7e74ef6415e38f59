"""Classification: accuracy and macro-F1 of predicted labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def classification_scores(
    predicted: NDArray[np.int64],
    gold: NDArray[np.int64],
    classes: int,
    *,
    bootstrap: int,
    seed: int = 0,
) -> dict[str, float | int | None]:
    """How many of N texts got their label.

    Args:
        predicted: (N,) index of the label that each text got.
        gold: (N,) index of its own.
        classes: How many labels there are.
        bootstrap: Resamples of the interval; 0 = no interval.
        seed: Seed of the resamples.

    Returns:
        ``accuracy`` and ``macro_f1`` (the plain mean over the labels that occur among ``predicted``
        or ``gold``) ×100, ``low`` and ``high`` (95 % percentile bootstrap of ``accuracy``, None
        without resamples) and ``n``.
    """
    import torch  # tables are printed without it
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

    found, wanted = torch.from_numpy(predicted), torch.from_numpy(gold)
    low = high = None
    if bootstrap:
        draws = np.random.default_rng(seed).integers(len(gold), size=(bootstrap, len(gold)))
        resampled = 100 * (predicted == gold)[draws].mean(axis=1)
        low, high = (float(value) for value in np.percentile(resampled, [2.5, 97.5]))
    return {
        "accuracy": 100 * float(multiclass_accuracy(found, wanted, classes, average="micro")),
        "macro_f1": 100 * float(multiclass_f1_score(found, wanted, classes, average="macro")),
        "low": low,
        "high": high,
        "n": len(gold),
    }
