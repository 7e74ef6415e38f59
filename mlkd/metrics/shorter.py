"""What shorter and coarser vectors keep of an encoder's scores.

A kind of vectors is written ``256`` (the first 256 numbers), ``int8``, ``binary``, or ``128-int8``.
``encode.py`` of an exported folder gives such vectors; here they are as an index compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlkd.metrics.scoring import Encode, Scores, can_score, score
from mlkd.metrics.sets import EvalSet
from mlkd.metrics.similarity import Array, unit
from mlkd.output.errors import UserError

WHOLE = "float32"
"""The kind that all others are compared with: every number, 4 bytes each."""


class Remembered:
    """An encoder that encodes each sentence once.

    Attributes:
        encode: What it asks for sentences that are new.
        known: Vector (d,) by sentence.
    """

    def __init__(self, encode: Encode) -> None:
        self.encode = encode
        self.known: dict[str, Array] = {}

    def __call__(self, texts: Sequence[str]) -> Array:
        """Vectors (n, d) of n sentences, at least one."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known.update(zip(new, np.asarray(self.encode(new)), strict=True))
        return np.stack([self.known[text] for text in texts])


def score_kinds(
    encode: Encode, sets: Sequence[EvalSet], kinds: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Score whole, shorter and coarser vectors of one encoder, which encodes each sentence once.

    Args:
        encode: The encoder.
        sets: Evaluation sets; those of kind ``classification`` are left out.
        kinds: As ``128-int8``; see :func:`check_kinds`.

    Returns:
        By kind, :data:`WHOLE` first, ``bytes`` of a vector and ``scores`` without intervals (see
        :func:`mlkd.metrics.scoring.score`).
    """
    read = [item for item in sets if can_score(item, None)]
    known = encode if isinstance(encode, Remembered) else Remembered(encode)
    found = {}
    for kind in (WHOLE, *kinds):

        def encode_kind(texts: Sequence[str], kind: str = kind) -> Array:
            return shortened(known(texts), kind)

        scores: Scores = score(encode_kind, read, bootstrap=0)
        width = len(next(iter(known.known.values()), ()))
        found[kind] = {"bytes": stored_bytes(kind, width), "scores": scores}
    return found


def check_kinds(kinds: Sequence[str], widths: Mapping[str, int]) -> None:
    """Refuse more numbers than the vectors have.

    Args:
        kinds: Of vectors.
        widths: Of the vectors of encoders, by name.

    Raises:
        UserError: One of them has fewer.
    """
    for kind in kinds:
        dimensions, _ = _parts(kind)
        for name, width in widths.items():
            if dimensions is not None and dimensions > width:
                raise UserError(f"vectors: {kind}: vectors of the {name} have {width} numbers")


def stored_bytes(kind: str, width: int) -> int:
    """Bytes of a vector of a kind, of an encoder that gives ``width`` numbers."""
    dimensions, precision = _parts(kind)
    numbers = width if dimensions is None else dimensions
    return {WHOLE: 4 * numbers, "int8": numbers, "binary": -(-numbers // 8)}[precision]


def shortened(vectors: Array, kind: str) -> NDArray[np.float64]:
    """Vectors (n, d) as numbers (n, ≤ d) whose cosines are those of a kind.

    int8: times 127 / the largest number of the vector, rounded. binary: the signs, whose cosine
    falls with the Hamming distance of the bits. A zero or non-finite vector is zero.
    """
    dimensions, precision = _parts(kind)
    part = unit(vectors)[:, :dimensions]
    if precision == "int8":
        largest = np.abs(part).max(axis=1, keepdims=True)
        whole: NDArray[np.float64] = np.rint(part * (127 / np.where(largest > 0, largest, 1.0)))
        return whole
    if precision == "binary":
        return np.where(part > 0, 1.0, -1.0) * part.any(axis=1, keepdims=True)
    return part


def _parts(kind: str) -> tuple[int | None, str]:
    """Numbers that are kept, None = all, and the precision."""
    dimensions, _, precision = kind.rpartition("-")
    if precision.isdigit():
        return int(precision), WHOLE
    return int(dimensions) if dimensions else None, precision
