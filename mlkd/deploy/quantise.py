"""Matrices and word tables in few bits: int8 with a scale a line, 4 bits with a scale a block."""

from __future__ import annotations

from typing import Literal

import numpy as np

Weights = Literal["fp32", "int8", "q4"]
"""How a graph stores matrices and word tables."""

BLOCK = 32
"""Numbers of a row that share a scale in 4 bits; ONNX Runtime takes powers of two from 16."""

_LEAST = 1e-4
"""Smallest scale: they are stored as float16, below whose normal range precision is lost."""


def quantise(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 of a matrix with one scale for each line across ``axis``.

    Args:
        values: ``(n, m)``.
        axis: The axis a scale is shared along: 0 gives a scale a column, 1 a scale a row.

    Returns:
        int8 ``(n, m)`` and float32 scales ``(1, m)`` or ``(n, 1)``.
    """
    scale = np.abs(values).max(axis=axis, keepdims=True) / 127
    scale = np.where(scale > 0, np.maximum(scale, _LEAST), 1).astype(np.float16).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def quantise_4bit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """4 bits a number, as ONNX Runtime's ``MatMulNBits`` and ``GatherBlockQuantized`` read them.

    A number is ``(stored - 8) * scale`` with ``stored`` of 0 to 15. The number of a block that is
    the farthest from 0 is stored as 0, so that all 16 values are used; its scale may be negative.
    Of two numbers in a byte the first has the lower four bits. Rows end with blocks that are filled
    up with zeros.

    Args:
        rows: ``(n, m)``.

    Returns:
        uint8 ``(n, blocks, BLOCK / 2)`` and float16 scales ``(n, blocks)``.
    """
    n, m = rows.shape
    blocks = -(-m // BLOCK)
    padded = np.zeros((n, blocks * BLOCK), np.float32)
    padded[:, :m] = rows
    padded = padded.reshape(n, blocks, BLOCK)
    farthest = np.take_along_axis(padded, np.abs(padded).argmax(-1)[..., None], -1)
    scale = np.copysign(np.maximum(np.abs(farthest) / 8, _LEAST), -farthest).astype(np.float16)
    stored = np.rint(padded / scale.astype(np.float32)).clip(-8, 7).astype(np.int8) + 8
    stored = stored.astype(np.uint8)
    return stored[..., 0::2] | stored[..., 1::2] << 4, scale[..., 0]
