"""Asymmetric use: one encoder reads queries, another one documents, in one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlkd.config.languages import split_pair
from mlkd.metrics.scoring import Encode, can_score, score
from mlkd.metrics.sets import EvalSet


def oriented(sets: Sequence[EvalSet], *, only_source: bool) -> list[EvalSet]:
    """Sets of sentence pairs whose left sides are queries and whose right sides are documents.

    The language that others are paired with, usually English, is that of the documents; a pair
    ``en-de`` becomes ``de-en`` by that.

    Args:
        sets: Evaluation sets; those of kind ``classification`` are left out.
        only_source: Leave out sets whose documents are in another language.
    """
    found = []
    for item in sets:
        first, second = split_pair(item.pair)
        if first == item.source != second:
            item = replace(item, pair=f"{second}-{first}", left=item.right, right=item.left)
        if can_score(item, None) and (item.source in (first, second) or not only_source):
            found.append(item)
    return found


def score_sides(
    queries: Encode, documents: Encode, sets: Sequence[EvalSet], *, only_source: bool
) -> dict[str, Any]:
    """Score queries of one encoder with documents of another, beside each of the two alone.

    Args:
        queries: Reads the left sides of :func:`oriented` sets.
        documents: Reads their right sides, into vectors of the same width.
        sets: Evaluation sets.
        only_source: Whether ``documents`` reads no other language than the sets' source.

    Returns:
        ``both``, ``queries`` (both sides by the encoder of queries) and ``documents``, each without
        intervals (see :func:`mlkd.metrics.scoring.score`). Of bitext ``forward`` is how often a
        query finds its document, ``backward`` how often a document finds its query.
    """
    read = oriented(sets, only_source=only_source)
    return {
        "both": score(queries, read, bootstrap=0, documents=documents),
        "queries": score(queries, read, bootstrap=0),
        "documents": score(documents, read, bootstrap=0),
    }
