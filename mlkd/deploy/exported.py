"""Exported folders that run in ONNX Runtime; what reads them needs no torch."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlkd.metrics.scoring import Encode
from mlkd.metrics.shorter import Remembered
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of

FP32, INT8, Q4 = "onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model_q4.onnx"
"""Graphs of a folder, named as Transformers.js and sentence-transformers look for them."""
_BLOCKS = {"words": "embedding", "projection": "embedding", "positions": "embedding",
           "embeddings": "embedding", "layer": "encoder"}  # fmt: skip
"""Block by the first part of a stored tensor's name."""


@dataclass(frozen=True)
class ExportedGraph:
    """A graph of an exported folder.

    Attributes:
        folder: With ``encode.py``.
        file: In the folder.
    """

    folder: Path
    file: str

    @property
    def precision(self) -> str:
        """``int8``, ``q4`` or ``fp32``."""
        from mlkd.deploy.formats import KINDS

        return KINDS.get(self.file, "fp32")


def exported(model: Path) -> ExportedGraph | None:
    """The graph that a path names: a ``.onnx`` file, or the one that ``encode.py`` chooses.

    Returns:
        None for other folders.

    Raises:
        UserError: It is a graph without the folder of an export around it.
    """
    if model.suffix == ".onnx":
        folder = model.absolute().parents[1]
        if not (model.is_file() and (folder / "encode.py").is_file()):
            raise UserError(f"{model}: no graph of an exported folder, with encode.py above it")
        return ExportedGraph(folder, model.absolute().relative_to(folder).as_posix())
    files = [file for file in (INT8, Q4, FP32, "model.onnx") if (model / file).is_file()]
    return ExportedGraph(model, files[0]) if files and (model / "encode.py").is_file() else None


def stored_parameters(graph: ExportedGraph) -> dict[str, int]:
    """Stored parameters of a graph, by block as in :func:`mlkd.metrics.size.parameters`.

    Scales of int8 and 4 bits are not counted.

    Raises:
        UserError: It is no graph.
    """
    import onnx

    counts = {"embedding": 0, "encoder": 0, "other": 0}
    path = graph.folder / graph.file
    try:
        content = onnx.load(path).graph
    except Exception as error:  # protobuf raises its own
        raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
    packed = {}  # two numbers a byte; a matrix fills its last blocks up
    for node in content.node:
        if node.op_type == "MatMulNBits":
            shape = {part.name: part.i for part in node.attribute}
            packed[node.input[1]] = shape["K"] * shape["N"]
        elif node.op_type == "GatherBlockQuantized":
            rows = next(x for x in content.initializer if x.name == node.input[0])
            packed[rows.name] = 2 * math.prod(rows.dims)
    for tensor in content.initializer:
        shapes = tensor.data_type == onnx.TensorProto.INT64
        if tensor.dims and not shapes and not tensor.name.endswith(".scale"):
            block = _BLOCKS.get(tensor.name.split(".")[0], "other")
            counts[block] += packed.get(tensor.name, math.prod(tensor.dims))
    return {**counts, "total": sum(counts.values())}


def open_onnx(folder: Path, threads: int = 0, file: str | None = None) -> Encode:
    """``encode`` of the folder's own ``encode.py``, with the graph that it chooses or ``file``."""
    spec = importlib.util.spec_from_file_location("mlkd_exported_encode", folder / "encode.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # it would name this machine
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    chosen = (file,) if file else ()  # folders of mlkd 0.1 hold one graph and do not ask
    encode: Encode = module.Encoder(folder, threads, *chosen).encode
    return encode


def open_graph(graph: ExportedGraph) -> Encode:
    """``encode`` of the folder's own ``encode.py``.

    Raises:
        UserError: A file of the folder is damaged.
    """
    try:
        return open_onnx(graph.folder, file=graph.file)
    except Exception as error:  # a damaged file fails in any of two libraries
        raise UserError(f"{graph.folder}: cannot be loaded ({reason_of(error)})") from None


def measure_graph(
    evaluation: Any, graph: ExportedGraph, encode: Remembered, head: Path | None = None
) -> dict[str, Any]:
    """What :meth:`mlkd.metrics.evaluation.Evaluation.measure` and ``speed`` give of a folder.

    Args:
        evaluation: What it is judged on.
        graph: The graph,
        encode: opened; it is timed without its memory.
        head: Folder of a head for classifications.
    """
    from mlkd.encoders.head import load_head
    from mlkd.metrics.size import folder_mib

    width = encode(["one sentence"]).shape[1]
    opened = None if head is None else load_head(head, width)
    return {
        **evaluation.speed({"model": encode.encode})["model"],
        "scores": evaluation.scores(encode, opened),
        "precision": graph.precision,
        "parameters": stored_parameters(graph),
        "mib": folder_mib(graph.folder),
    }
