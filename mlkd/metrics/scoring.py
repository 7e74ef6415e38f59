"""Scores of an encoder on evaluation sets, and the value that selects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlkd.config.languages import split_pair
from mlkd.metrics.bitext import retrieval
from mlkd.metrics.classification import classification_scores
from mlkd.metrics.sets import EvalSet
from mlkd.metrics.similarity import Array, cosines, sts_scores
from mlkd.output.errors import UserError

if TYPE_CHECKING:
    from mlkd.encoders.head import Head

Encode = Callable[[Sequence[str]], Array]
"""N sentences to (N, d) vectors."""

Scores = dict[str, Any]
"""What ``score`` returns; plain JSON."""

HEADLINE = {"sts": "spearman", "bitext": "mean", "classification": "accuracy"}
"""The number of a language pair that enters means."""

log = logging.getLogger(__name__)


def score(
    encode: Encode,
    sets: Sequence[EvalSet],
    *,
    bootstrap: int,
    teacher: Encode | None = None,
    head: Head | None = None,
    documents: Encode | None = None,
) -> Scores:
    """Score an encoder on evaluation sets; every distinct sentence is encoded once.

    Args:
        encode: The encoder to judge.
        sets: Evaluation sets.
        bootstrap: Resamples of the STS intervals; 0 = none.
        head: What classifies its vectors; without one, or with one for other labels, sets of kind
            ``classification`` are left out.
        teacher: Encoder whose vectors the student imitates; it sees the source language of each
            set only, usually English.
        documents: Reads the right sides instead; None = the encoder itself.

    Returns:
        ``sets``: by name ``kind``, ``split``, ``pairs`` (numbers of each language pair) and
        ``content`` (a hash of each pair's sentences and gold scores);
        ``mean``: by split and kind the plain mean over language pairs, None where there is no
        set (``sts_same`` and ``sts_cross`` are its parts with one and with two languages;
        ``classification`` is only there with such sets);
        ``agreement``: mean cosine between the student's vectors of both sides of dev bitext and
        the teacher's vectors of the source side, None without either or with unequal widths.
    """
    sets = [item for item in sets if can_score(item, head)]
    if documents is None:
        student = _encoded(encode, (text for item in sets for text in (*item.left, *item.right)))
        other = student
    else:
        student = _encoded(encode, (text for item in sets for text in item.left))
        other = _encoded(documents, (text for item in sets for text in item.right))
    results: dict[str, Any] = {}
    for item in sets:
        left, right = _rows(student, item.left), _rows(other, item.right)
        entry = results.setdefault(
            item.name, {"kind": item.kind, "split": item.split, "pairs": {}, "content": {}}
        )
        entry["content"][item.pair] = item.content
        found: Mapping[str, float | int | None]
        if item.scores is None:
            found = retrieval(left, right, sentences=(item.left, item.right))
        elif item.kind == "classification" and head is not None:
            predicted = np.array(
                [item.labels.index(label) for label in head.of(item.domain).named(left)]
            )
            gold, classes = item.scores.astype(np.int64), len(item.labels)
            found = classification_scores(predicted, gold, classes, bootstrap=bootstrap)
        else:
            found = sts_scores(left, right, item.scores, bootstrap=bootstrap)
        entry["pairs"][item.pair] = found
    mean = {split: _means(results, split) for split in ("dev", "test")}
    agreement = None if teacher is None else _agreement(student, teacher, sets)
    return {"sets": results, "mean": mean, "agreement": agreement}


def can_score(item: EvalSet, head: Head | None) -> bool:
    """Whether an encoder with this head, or none, can be scored on a set."""
    if item.kind != "classification":
        return True
    return head is not None and set(head.labels) == set(item.labels)


def select_value(scores: Scores) -> float:
    """The number, larger is better, by which a checkpoint is selected; dev sets only.

    STS decides where there is a dev STS set, else bitext, else classification: they are not
    averaged, since one point of one is not worth one point of the other.

    Raises:
        UserError: No set has ``split: dev``; a test set never selects.
    """
    means = _means(scores["sets"], "dev")
    for kind in HEADLINE:
        if (value := means.get(kind)) is not None:
            return value
    names = ", ".join(scores["sets"]) or "none"
    raise UserError(f"eval.sets ({names}): selection needs a set with split=dev")


def share_of(reference: Scores, scores: Scores) -> dict[str, float | None]:
    """How much of a reference's mean test STS a model keeps.

    Args:
        reference: Scores of the reference, usually the assistant.
        scores: Scores of the model on the same sets.

    Returns:
        ``share`` = 100·ρ_S/ρ_A and ``loss`` = 100·(ρ_A−ρ_S)/ρ_A in %; None where there is no
        test STS or the reference's mean is not positive.

    Raises:
        ValueError: The two were scored on different test sets.
    """
    if _test_pairs(reference) != _test_pairs(scores):
        raise ValueError("share_of needs scores on the same test sets")
    whole = _means(reference["sets"], "test")["sts"]
    kept = _means(scores["sets"], "test")["sts"]
    if whole is None or kept is None or whole <= 0:
        return {"share": None, "loss": None}
    return {"share": 100 * kept / whole, "loss": 100 * (whole - kept) / whole}


def _encoded(encode: Encode, texts: Iterable[str]) -> dict[str, Array]:
    """Vector (d,) of each distinct sentence."""
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return {}
    vectors = np.asarray(encode(distinct))
    if vectors.ndim != 2 or len(vectors) != len(distinct):
        raise ValueError(f"{len(distinct)} sentences were encoded to shape {vectors.shape}")
    if broken := int((~np.isfinite(vectors).all(axis=1)).sum()):
        log.warning("%d of %d vectors are not finite; they count as zero", broken, len(vectors))
    return dict(zip(distinct, vectors, strict=True))


def _rows(vectors: dict[str, Array], texts: Sequence[str]) -> Array:
    return np.stack([vectors[text] for text in texts])


def _means(results: dict[str, Any], split: str) -> dict[str, float | None]:
    """Plain means over the language pairs of a split's sets."""
    found: dict[str, list[float]] = {"sts": [], "bitext": [], "sts_same": [], "sts_cross": []}
    for entry in results.values():
        if entry["split"] != split:
            continue
        for pair, numbers in entry["pairs"].items():
            value = numbers[HEADLINE[entry["kind"]]]
            found.setdefault(entry["kind"], []).append(value)
            if entry["kind"] == "sts":
                a, b = split_pair(pair)
                found["sts_same" if a == b else "sts_cross"].append(value)
    return {kind: float(np.mean(values)) if values else None for kind, values in found.items()}


def _test_pairs(scores: Scores) -> set[tuple[str, str]]:
    sets = [(name, e) for name, e in scores["sets"].items() if e["kind"] != "classification"]
    return {(name, pair) for name, e in sets if e["split"] == "test" for pair in e["pairs"]}


def _agreement(student: dict[str, Array], teacher: Encode, sets: Sequence[EvalSet]) -> float | None:
    """Mean over dev bitext pairs of the cosine of both sides with the teacher's source side."""
    bitext = [item for item in sets if (item.kind, item.split) == ("bitext", "dev")]
    bitext = [item for item in bitext if item.source in split_pair(item.pair)]
    sources = [
        item.left if split_pair(item.pair)[0] == item.source else item.right for item in bitext
    ]
    targets = _encoded(teacher, (text for texts in sources for text in texts))
    if not targets or next(iter(targets.values())).shape != next(iter(student.values())).shape:
        return None
    return float(
        np.mean(
            [
                cosines(_rows(student, side), _rows(targets, texts)).mean()
                for item, texts in zip(bitext, sources, strict=True)
                for side in (item.left, item.right)
            ]
        )
    )
