"""A sentence encoder as one ONNX graph, from token ids to the unit vector, built node by node.

The graph is written by us rather than traced: a recurrent layer is stored once however often it is
run, the factorised word table stays factorised, and each matrix can be stored as int8. Attention is
one operator of ONNX Runtime, with fewer passes over its data than what it stands for.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from torch import nn

from mlkd.deploy.graph import GELU_MIN, Graph
from mlkd.encoders.backbone import (
    Backbone,
    backbone_of,
    check_supported,
    first_position,
    layers,
    longest_input,
)
from mlkd.encoders.bottleneck import BottleneckEmbedding
from mlkd.output.errors import UserError

OPSET, IR_VERSION = 20, 9
"""``Gelu`` is an operator since opset 20, which ONNX Runtime reads since 1.17."""

_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}


def write_onnx(model: SentenceTransformer, folder: Path, *, int8: bool) -> None:
    """Write ``model.onnx``, ``tokenizer.json``, ``config.json`` and ``encode.py``.

    Raises:
        UserError: The encoder has a part that the graph cannot express.
    """
    folder.mkdir()
    onnx.save(build(model, int8=int8), folder / "model.onnx")
    tokenizer = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    tokenizer.enable_truncation(longest(model))
    tokenizer.enable_padding(
        pad_id=model.tokenizer.pad_token_id, pad_token=model.tokenizer.pad_token
    )
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "dimension": model.get_embedding_dimension(),
        "max_tokens": longest(model),
        "weights": "int8" if int8 else "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("encode.py"), folder / "encode.py")


def build(model: SentenceTransformer, *, int8: bool) -> onnx.ModelProto:
    """The graph: int64 ``input_ids`` and ``attention_mask`` ``(batch, length)`` to ``vectors``.

    The result is float32 ``(batch, d)`` of length 1.

    Args:
        model: A sentence encoder on the CPU.
        int8: Whether to store matrices and the word table as int8; biases, norms and positions,
            which are small, stay as they are.

    Raises:
        UserError: The encoder has a part that the graph cannot express.
    """
    graph = Graph(int8=int8)
    vectors = _sentence_vector(graph, model)
    graph.nodes.append(helper.make_node("Identity", [vectors], ["vectors"]))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    shape = ["batch", model.get_embedding_dimension()]
    output = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, shape)
    stored = [numpy_helper.from_array(array, name) for name, array in graph.weights.items()]
    content = helper.make_graph(graph.nodes, "sentence_encoder", inputs, [output], stored)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(content, opset_imports=opsets, ir_version=IR_VERSION)
    proto.producer_name = "mlkd"
    return proto


def _sentence_vector(graph: Graph, model: SentenceTransformer) -> str:
    """Nodes of the whole encoder."""
    backbone = backbone_of(model)
    check_supported(backbone)
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    x = _embeddings(graph, backbone, longest(model))
    read = graph.op("Cast", "attention_mask", to=TensorProto.INT32)
    stored = list(dict.fromkeys(layers(backbone)))
    for layer in layers(backbone):  # a recurrent layer comes again, under the same name
        x = _layer(graph, x, read, f"layer.{stored.index(layer)}", layer, backbone.config)
    for number, module in enumerate(list(model)[1:]):
        x = _tail(graph, x, mask, f"tail.{number}", module)
    unit = type(list(model)[-1]).__name__ == "Normalize"
    return x if unit else _unit(graph, x)


def _unit(graph: Graph, x: str) -> str:
    """``(..., d)`` with rows of length 1."""
    return str(graph.op("LpNormalization", x, axis=-1, p=2))


def longest(model: SentenceTransformer) -> int:
    """Longer inputs are cut (tokens)."""
    legal = longest_input(backbone_of(model))
    return min(model.max_seq_length or legal, legal)


def _embeddings(graph: Graph, backbone: Backbone, max_tokens: int) -> str:
    """Word, position and type vectors, normalised: ``(batch, length, d)``."""
    parts, words = backbone.embeddings, backbone.get_input_embeddings()
    if isinstance(words, BottleneckEmbedding):
        x = graph.rows("input_ids", "words", words.table.weight)
        x = graph.linear(x, "projection", words.projection.weight, None)
    else:
        x = graph.rows("input_ids", "words", words.weight)
    first = first_position(backbone)
    if backbone.config.model_type == "bert":
        length = graph.op("Squeeze", graph.op("Shape", "input_ids", start=1, end=2))
        zero, step = graph.number(0, np.int64), graph.number(1, np.int64)
        ids = graph.op("Range", zero, length, step)
    else:  # positions count the tokens that are no padding, from pad_token_id + 1
        padding = graph.number(first - 1, np.int64)
        read = graph.op("Not", graph.op("Equal", "input_ids", padding))
        read = graph.op("Cast", read, to=TensorProto.INT64)
        count = graph.op("CumSum", read, graph.number(1, np.int64))
        ids = graph.op("Add", graph.op("Mul", count, read), padding)
    # A sentence has one segment: its type vector is part of every position. Rows behind the
    # longest legal input are never met.
    table = parts.position_embeddings.weight + parts.token_type_embeddings.weight[0]
    x = graph.op("Add", x, graph.half_rows(ids, "positions", table[: first + max_tokens]))
    return graph.norm(x, "embeddings.norm", parts.LayerNorm)


def _layer(graph: Graph, x: str, read: str, name: str, layer: Any, config: Any) -> str:
    """One Transformer layer with the norms after the sums (BERT, XLM-R)."""
    attention, out = layer.attention.self, layer.attention.output
    parts = (attention.query, attention.key, attention.value)
    weight = torch.cat([part.weight for part in parts])  # one product for all three
    bias = torch.cat([part.bias for part in parts])
    joined, added = graph.product(graph.operand(x), f"{name}.query_key_value", weight, bias)
    three = graph.op("Split", joined, outputs=3, axis=-1, num_outputs=3)
    heads = config.num_attention_heads
    mixed = graph.contrib("MultiHeadAttention", *three, added, read, num_heads=heads)
    y = graph.linear(mixed, f"{name}.attention_output", out.dense.weight, out.dense.bias)
    x = graph.norm(graph.op("Add", y, x), f"{name}.attention_norm", out.LayerNorm)
    y = _feed_forward(graph, x, name, layer.intermediate.dense, layer.output.dense, config)
    return graph.norm(graph.op("Add", y, x), f"{name}.output_norm", layer.output.LayerNorm)


def _feed_forward(
    graph: Graph, x: str, name: str, first: nn.Linear, second: nn.Linear, config: Any
) -> str:
    """``second(activation(first(x)))``."""
    # The tanh form of GELU differs by less than an int8 step and takes two thirds of the time.
    fused = {"gelu": "FastGelu" if graph.int8 else "BiasGelu", "gelu_new": "FastGelu"}
    kind = fused.get(config.hidden_act)
    y, bias = graph.product(graph.operand(x), f"{name}.intermediate", first.weight, first.bias)
    if kind:
        y = graph.contrib(kind, y, bias)
    else:
        y = _activation(graph, graph.op("Add", y, bias), config.hidden_act)
    rows = graph.operand(y, lowest=GELU_MIN if kind else 0.0)
    y, bias = graph.product(rows, f"{name}.output", second.weight, second.bias)
    return str(graph.op("Add", y, bias))


def _activation(graph: Graph, x: str, name: str) -> str:
    if name not in _ACTIVATIONS:
        allowed = ", ".join(_ACTIVATIONS)
        raise UserError(f"onnx: activation {name} is not supported; allowed: {allowed}")
    kind, attributes = _ACTIVATIONS[name]
    return str(graph.op(kind, x, **attributes))


def _tail(graph: Graph, x: str, mask: str, name: str, module: Any) -> str:
    """What follows the backbone: pooling, dense heads, normalisation."""
    kind = type(module).__name__
    if kind == "Pooling":
        return _pooling(graph, x, mask, module)
    if kind == "Dense":
        y = graph.linear(x, name, module.linear.weight, module.linear.bias)
        activation = type(module.activation_function).__name__.lower()
        return y if activation == "identity" else _activation(graph, y, activation)
    if kind == "Normalize":
        return _unit(graph, x)
    raise UserError(f"onnx: module {kind} is not supported; allowed: Pooling, Dense, Normalize")


def _pooling(graph: Graph, x: str, mask: str, module: Any) -> str:
    """``(batch, length, d)`` to ``(batch, d)``."""
    mode = module.pooling_mode
    if mode == "cls":
        return str(graph.op("Gather", x, graph.number(0, np.int64), axis=1))
    if mode != "mean":
        raise UserError(f"onnx: pooling {mode} is not supported; allowed: mean, cls")
    total = graph.op("MatMul", graph.op("Unsqueeze", mask, graph.ints(1)), x)
    total = graph.op("Squeeze", total, graph.ints(1))
    return str(graph.op("Div", total, graph.op("ReduceSum", mask, graph.ints(1), keepdims=1)))
