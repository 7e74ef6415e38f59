"""Building blocks of an ONNX graph whose matrices are stored once, as float32 or as int8."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

GELU_MIN = 0.17
"""GELU is nowhere below minus this (its tanh form by less than 1e-4)."""


@dataclass(frozen=True)
class Operand:
    """The left side of products.

    Attributes:
        name: Of the matrix ``(..., n)``; uint8 in an int8 graph, which alone has the rest.
        largest: Of the largest absolute value of each row ``(..., 1)``.
        step: Between two integers, as a share of the largest value.
        zero: Of the integer that stands for ``-lowest``, or for 0.
        lowest: What was added to the values before.
    """

    name: str
    largest: str = ""
    step: float = 0.0
    zero: str = ""
    lowest: float = 0.0


@dataclass
class Graph:
    """Nodes and weights so far; each method adds something and returns the name of its result.

    Attributes:
        int8: Whether matrices and word tables are stored as int8.
    """

    int8: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; its result's name, or a tuple of names where it has several."""
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0] if outputs == 1 else tuple(names)

    def contrib(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node of ONNX Runtime's own operators; its packages have them, other runtimes do not."""
        return str(self.op(kind, *inputs, domain="com.microsoft", **attributes))

    def weight(self, name: str, value: Any, kind: Any = np.float32) -> str:
        """A stored tensor; the same name again is the same tensor."""
        if name not in self.weights:
            array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
            self.weights[name] = np.asarray(array, kind, order="C")
        return name

    def ints(self, *values: int) -> str:
        """A small constant of shapes and axes."""
        return self.weight("ints_" + "_".join(map(str, values)), np.array(values), np.int64)

    def number(self, value: float, kind: Any = np.float32) -> str:
        """A constant."""
        return self.weight(f"{np.dtype(kind).name}_{value:g}", np.array(value), kind)

    def operand(self, x: str, *, lowest: float = 0.0) -> Operand:
        """The left side of products: ``x`` itself, or in an int8 graph its rows as uint8.

        ONNX Runtime's own dynamic quantisation has one scale for all rows of a batch, so that an
        outlier in one token costs the others their precision and a vector depends on what else is
        in its batch. A scale a row costs a division, and mends both. On x86 without VNNI sums of
        two products saturate, which about doubles the error; weights of 7 bits would not, but
        raise it by half everywhere.

        Args:
            x: ``(..., n)``.
            lowest: No value of ``x`` is below minus this, though far above: int8 then spends its
                steps on that range.
        """
        if not self.int8:
            return Operand(x)
        if lowest:
            step, zero = 1 / 255, 0
            x = self.op("Add", x, self.number(lowest))
            largest = self.op("ReduceMax", x, self.ints(-1), keepdims=1)
        else:
            step, zero = 1 / 127, 128
            largest = self.op("ReduceMax", self.op("Abs", x), self.ints(-1), keepdims=1)
        # A row of zeros divides by zero, and its product, whatever it is, is multiplied by zero.
        zero_point = self.number(zero, np.uint8)
        rows = self.op("QuantizeLinear", self.op("Div", x, largest), self.number(step), zero_point)
        return Operand(rows, largest, step, zero_point, lowest)

    def product(
        self, x: Operand, name: str, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[str, str]:
        """``x @ weight.T``, and what is still to be added to it, for what adds it in passing.

        Args:
            x: ``(..., n)``.
            name: Of the stored matrix.
            weight: ``(m, n)``.
            bias: ``(m,)``.

        Returns:
            Two names: of ``(..., m)``, and of the stored bias ``(m,)``, empty where there is none.
        """
        matrix = weight.detach().T.numpy()
        added = None if bias is None else bias.detach().numpy()
        if self.int8:
            columns, scale = quantise(matrix, axis=0)
            met = f"{name}.int8" in self.weights
            stored = self.weight(f"{name}.int8", columns, np.int8)
            if (
                met
            ):  # in a later pass: see encode.py, whose option renames what a node multiplies by
                stored = self.op("Reshape", stored, self.ints(*columns.shape))
            scales = self.weight(f"{name}.scale", scale[0])
            parts = (x.name, stored, self.number(x.step), scales, x.zero)
            result = self.op("Mul", self.contrib("MatMulIntegerToFloat", *parts), x.largest)
            if x.lowest:
                added = (0.0 if added is None else added) - x.lowest * (columns * scale).sum(0)
        else:
            result = self.op("MatMul", x.name, self.weight(name, matrix))
        return str(result), "" if added is None else self.weight(f"{name}.bias", added)

    def linear(self, x: str, name: str, weight: torch.Tensor, bias: torch.Tensor | None) -> str:
        """``x @ weight.T + bias``; shapes as in :meth:`product`."""
        result, added = self.product(self.operand(x), name, weight, bias)
        return str(self.op("Add", result, added)) if added else result

    def rows(self, ids: str, name: str, table: torch.Tensor) -> str:
        """Rows of a word table; as int8 with one scale a row, and only the rows met are scaled."""
        if not self.int8:
            return str(self.op("Gather", self.weight(name, table), ids))
        quantised, scale = quantise(table.detach().numpy(), axis=1)
        stored = self.op("Gather", self.weight(f"{name}.int8", quantised, np.int8), ids)
        stored = self.op("Cast", stored, to=TensorProto.FLOAT)
        return str(self.op("Mul", stored, self.half_rows(ids, f"{name}.scale", scale)))

    def coded_rows(self, ids: str, name: str, codes: torch.Tensor, centroids: torch.Tensor) -> str:
        """Rows of a word table from their codes ``(V, M)`` and the centroids ``(M, C, w)``."""
        parts, count, _ = centroids.shape
        found = self.op("Gather", self.weight(f"{name}.codes", codes, np.uint8), ids)
        first = self.weight(f"{name}.first", np.arange(parts) * count, np.int64)
        found = self.op("Add", self.op("Cast", found, to=TensorProto.INT64), first)
        rows = self.half_rows(found, f"{name}.centroids", centroids.flatten(0, 1).detach())
        return str(self.op("Reshape", rows, self.ints(0, 0, -1)))

    def half_rows(self, ids: str, name: str, table: Any) -> str:
        """Rows of a small table, which an int8 graph stores as float16."""
        kind = np.float16 if self.int8 else np.float32
        stored = self.op("Gather", self.weight(name, table, kind), ids)
        return str(self.op("Cast", stored, to=TensorProto.FLOAT) if self.int8 else stored)

    def norm(self, x: str, name: str, module: nn.LayerNorm) -> str:
        """Layer normalisation over the last axis."""
        gain = self.weight(f"{name}.gain", module.weight)
        bias = self.weight(f"{name}.bias", module.bias)
        result = self.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=module.eps)
        return str(result)


def quantise(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 of a matrix with one scale for each line across ``axis``.

    Args:
        values: ``(n, m)``.
        axis: The axis a scale is shared along: 0 gives a scale a column, 1 a scale a row.

    Returns:
        int8 ``(n, m)`` and float32 scales ``(1, m)`` or ``(n, 1)``.
    """
    scale = np.abs(values).max(axis=axis, keepdims=True) / 127
    # Scales of rows are stored as float16, below whose normal range precision is lost.
    scale = np.where(scale > 0, np.maximum(scale, 1e-4), 1).astype(np.float16).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale
