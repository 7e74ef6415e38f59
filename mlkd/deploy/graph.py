"""Building blocks of an ONNX graph whose matrices are stored once, in float32, int8 or 4 bits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from mlkd.config.formats import Q4Config
from mlkd.deploy.quantise import BLOCK, Weights, quantise, quantise_4bit
from mlkd.encoders.coded import CodedEmbedding
from mlkd.output.errors import UserError
from mlkd.student.codes import fit_codes

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
class GraphBuilder:
    """Nodes and weights so far; each method adds something and returns the name of its result.

    Attributes:
        kind: How matrices and word tables are stored.
        q4: How ``q4`` stores a word table.
    """

    kind: Weights
    q4: Q4Config = field(default_factory=Q4Config)
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

    def floats(self, x: str) -> str:
        """``x`` as float32."""
        return str(self.op("Cast", x, to=TensorProto.FLOAT))

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
        if self.kind != "int8":
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
        if self.kind == "q4":
            result = self._product_of_4_bits(x.name, name, weight)
            return result, "" if bias is None else self.weight(f"{name}.bias", bias)
        matrix = weight.detach().T.numpy()
        added = None if bias is None else bias.detach().numpy()
        if self.kind == "int8":
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

    def _product_of_4_bits(self, x: str, name: str, weight: torch.Tensor) -> str:
        """``x @ weight.T``; ONNX Runtime may round blocks of ``x`` to int8 where that is faster."""
        rows, width = weight.shape
        stored, scale = quantise_4bit(weight.detach().numpy())
        packed = self.weight(f"{name}.q4", stored, np.uint8)
        # Casts of what is stored are done once, when the graph is loaded.
        scales = self.floats(self.weight(f"{name}.scale", scale, np.float16))
        shape = {"K": width, "N": rows, "bits": 4, "block_size": BLOCK, "accuracy_level": 4}
        return self.contrib("MatMulNBits", x, packed, scales, **shape)

    def linear(self, x: str, name: str, weight: torch.Tensor, bias: torch.Tensor | None) -> str:
        """``x @ weight.T + bias``; shapes as in :meth:`product`."""
        result, added = self.product(self.operand(x), name, weight, bias)
        return str(self.op("Add", result, added)) if added else result

    def rows(self, ids: str, name: str, table: torch.Tensor) -> str:
        """Rows of a word table, of which only those that are met become float32."""
        if self.kind == "fp32":
            return str(self.op("Gather", self.weight(name, table), ids))
        values = table.detach().numpy()
        if self.kind == "q4" and self.q4.table == "int4":
            return self._rows_of_4_bits(ids, name, values)
        if self.kind == "q4" and self.q4.table == "pq":
            coded = self._coded(table)
            return self.coded_rows(ids, name, coded.codes, coded.centroids)
        quantised, scale = quantise(values, axis=1)
        stored = self.op("Gather", self.weight(f"{name}.int8", quantised, np.int8), ids)
        return str(self.op("Mul", self.floats(stored), self.half_rows(ids, f"{name}.scale", scale)))

    def _rows_of_4_bits(self, ids: str, name: str, table: np.ndarray) -> str:
        """Rows whose blocks of numbers have a scale each."""
        count, width = table.shape
        stored, scale = quantise_4bit(table)
        stored = stored.reshape(count, -1)[:, : -(-width // 2)]  # none of the padding
        packed = self.weight(f"{name}.q4", stored, np.uint8)
        scales = self.weight(f"{name}.scale", scale, np.float16)
        shape = {"bits": 4, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
        rows = self.floats(self.contrib("GatherBlockQuantized", packed, ids, scales, **shape))
        if width % 2:  # a byte holds two
            rows = self.op("Slice", rows, self.ints(0), self.ints(width), self.ints(-1))
        return rows

    def _coded(self, table: torch.Tensor) -> CodedEmbedding:
        """The nearest table in codes; every row counts the same."""
        count, width = table.shape
        parts = self.q4.codes or next(n for n in range(-(-width // 4), width + 1) if width % n == 0)
        if width % parts:
            allowed = ", ".join(str(n) for n in range(1, width + 1) if width % n == 0)
            raise UserError(f"q4.codes={parts}: the word table is {width} wide; allowed: {allowed}")
        coded = CodedEmbedding(count, parts, width)
        fit_codes(coded, table.detach(), torch.ones(count), seed=0)
        return coded

    def coded_rows(self, ids: str, name: str, codes: torch.Tensor, centroids: torch.Tensor) -> str:
        """Rows of a word table from their codes ``(V, M)`` and the centroids ``(M, C, w)``."""
        parts, count, _ = centroids.shape
        found = self.op("Gather", self.weight(f"{name}.codes", codes, np.uint8), ids)
        first = self.weight(f"{name}.first", np.arange(parts) * count, np.int64)
        found = self.op("Add", self.op("Cast", found, to=TensorProto.INT64), first)
        rows = self.half_rows(found, f"{name}.centroids", centroids.flatten(0, 1).detach())
        return str(self.op("Reshape", rows, self.ints(0, 0, -1)))

    def half_rows(self, ids: str, name: str, table: Any) -> str:
        """Rows of a small table, which is stored as float16 unless the graph is float32."""
        if self.kind == "fp32":
            return str(self.op("Gather", self.weight(name, table), ids))
        return self.floats(self.op("Gather", self.weight(name, table, np.float16), ids))

    def norm(self, x: str, name: str, module: nn.LayerNorm) -> str:
        """Layer normalisation over the last axis."""
        gain = self.weight(f"{name}.gain", module.weight)
        bias = self.weight(f"{name}.bias", module.bias)
        result = self.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=module.eps)
        return str(result)
