"""A sentence encoder as one ONNX graph, from token ids to the unit vector, built node by node.

The graph is written by us rather than traced: a recurrent layer is stored once however often it is
run, the factorised word table stays factorised, and each matrix can be stored in few bits.
Attention is one operator of ONNX Runtime, with fewer passes over its data than what it stands for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sentence_transformers import SentenceTransformer
from torch import nn

from mlkd.config.formats import Q4Config
from mlkd.deploy.dense import longest
from mlkd.deploy.gate import Refused
from mlkd.deploy.graph import GELU_MIN, GraphBuilder
from mlkd.deploy.quantise import Weights
from mlkd.encoders.backbone import (
    Backbone,
    backbone_of,
    check_supported,
    first_position,
    layers,
)
from mlkd.encoders.bottleneck import BottleneckEmbedding
from mlkd.encoders.coded import CodedEmbedding
from mlkd.output.errors import UserError

OPSET, IR_VERSION = 20, 9
"""``Gelu`` is an operator since opset 20, which ONNX Runtime reads since 1.17."""

_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
}


def write_onnx(
    model: SentenceTransformer, file: Path, kind: Weights, q4: Q4Config | None = None
) -> None:
    """Write the graph of an encoder (see :func:`build_graph`).

    Raises:
        Refused: The encoder has a part that the graph cannot express.
    """
    file.write_bytes(build_graph(model, kind, q4).SerializeToString())


def build_graph(
    model: SentenceTransformer, kind: Weights, q4: Q4Config | None = None
) -> onnx.ModelProto:
    """The graph: int64 ``input_ids`` and ``attention_mask`` ``(batch, length)`` to two outputs.

    They are ``last_hidden_state`` ``(batch, length, hidden)``, which tools pool themselves, and
    ``sentence_embedding`` ``(batch, d)`` of length 1, both float32.

    Args:
        model: A sentence encoder on the CPU.
        kind: How to store matrices and the word table; biases and norms, which are small, stay
            float32, and positions become float16 unless all is float32.
        q4: How ``q4`` stores the word table; None for the default.

    Raises:
        Refused: The encoder has a part that the graph cannot express.
        UserError: ``q4`` does not fit the word table, or that has codes already.
    """
    if prompt := model.prompts.get(model.default_prompt_name or ""):
        raise Refused(f"onnx: a graph reads sentences as they are, not behind {prompt!r}")
    if q4 is not None and isinstance(backbone_of(model).get_input_embeddings(), CodedEmbedding):
        raise UserError("q4.table: the student's word table was trained in codes and keeps them")
    graph = GraphBuilder(kind, q4 or Q4Config())
    hidden, vectors = _sentence_vector(graph, model)
    widths = {"last_hidden_state": backbone_of(model).config.hidden_size}
    widths["sentence_embedding"] = int(model.get_embedding_dimension() or 0)
    outputs = []
    for (name, width), result in zip(widths.items(), (hidden, vectors), strict=True):
        graph.nodes.append(helper.make_node("Identity", [result], [name]))
        shape = ["batch", "length", width] if result == hidden else ["batch", width]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    stored = [numpy_helper.from_array(array, name) for name, array in graph.weights.items()]
    content = helper.make_graph(graph.nodes, "sentence_encoder", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(content, opset_imports=opsets, ir_version=IR_VERSION)
    proto.producer_name = "mlkd"
    return proto


def _sentence_vector(graph: GraphBuilder, model: SentenceTransformer) -> tuple[str, str]:
    """Nodes of the whole encoder; its last hidden states and its vector."""
    backbone = backbone_of(model)
    check_supported(backbone)
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    ids = _ended(graph, _end_of_text(model.tokenizer))
    x = _embeddings(graph, ids, backbone, longest(model))
    read = graph.op("Cast", "attention_mask", to=TensorProto.INT32)
    stored = list(dict.fromkeys(layers(backbone)))
    for layer in layers(backbone):  # a recurrent layer comes again, under the same name
        x = _layer(graph, x, read, f"layer.{stored.index(layer)}", layer, backbone.config)
    hidden = x
    for number, module in enumerate(list(model)[1:]):
        x = _tail(graph, x, mask, f"tail.{number}", module)
    unit = type(list(model)[-1]).__name__ == "Normalize"
    return hidden, x if unit else _unit(graph, x)


def _end_of_text(tokenizer: Any) -> int | None:
    """The token that every text ends with, if there is one."""
    last: int = tokenizer("a")["input_ids"][-1]
    return last if last in tokenizer.all_special_ids else None


def _ended(graph: GraphBuilder, end: int | None) -> str:
    """The ids with the end token as the last of each text, where it is already, or was cut off.

    Tools that cut after the end token is added, as Transformers.js does, would give a text that is
    too long another vector.
    """
    if end is None:
        return "input_ids"
    one = graph.number(1, np.int64)
    left = graph.op("CumSum", "attention_mask", one, reverse=1)  # tokens from here on
    last = graph.op("Equal", graph.op("Mul", left, "attention_mask"), one)
    return str(graph.op("Where", last, graph.number(end, np.int64), "input_ids"))


def _unit(graph: GraphBuilder, x: str) -> str:
    """``(..., d)`` with rows of length 1."""
    return str(graph.op("LpNormalization", x, axis=-1, p=2))


def _embeddings(graph: GraphBuilder, tokens: str, backbone: Backbone, max_tokens: int) -> str:
    """Word, position and type vectors, normalised: ``(batch, length, d)``."""
    parts, words = backbone.embeddings, backbone.get_input_embeddings()
    if isinstance(words, BottleneckEmbedding):
        x = graph.rows(tokens, "words", words.table.weight)
        x = graph.linear(x, "projection", words.projection.weight, None)
    elif isinstance(words, CodedEmbedding):
        x = graph.coded_rows(tokens, "words", words.codes, words.centroids)
    else:
        x = graph.rows(tokens, "words", words.weight)
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


def _layer(graph: GraphBuilder, x: str, read: str, name: str, layer: Any, config: Any) -> str:
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
    graph: GraphBuilder, x: str, name: str, first: nn.Linear, second: nn.Linear, config: Any
) -> str:
    """``second(activation(first(x)))``."""
    # The tanh form of GELU differs by less than an int8 step and takes two thirds of the time.
    fused = {"gelu": "BiasGelu" if graph.kind == "fp32" else "FastGelu", "gelu_new": "FastGelu"}
    kind = fused.get(config.hidden_act)
    y, bias = graph.product(graph.operand(x), f"{name}.intermediate", first.weight, first.bias)
    if kind:
        y = graph.contrib(kind, y, bias)
    else:
        y = _activation(graph, graph.op("Add", y, bias), config.hidden_act)
    rows = graph.operand(y, lowest=GELU_MIN if kind else 0.0)
    y, bias = graph.product(rows, f"{name}.output", second.weight, second.bias)
    return str(graph.op("Add", y, bias))


def _activation(graph: GraphBuilder, x: str, name: str) -> str:
    if name not in _ACTIVATIONS:
        allowed = ", ".join(_ACTIVATIONS)
        raise Refused(f"onnx: activation {name} is not supported; allowed: {allowed}")
    kind, attributes = _ACTIVATIONS[name]
    return str(graph.op(kind, x, **attributes))


def _tail(graph: GraphBuilder, x: str, mask: str, name: str, module: Any) -> str:
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
    raise Refused(f"onnx: module {kind} is not supported; allowed: Pooling, Dense, Normalize")


def _pooling(graph: GraphBuilder, x: str, mask: str, module: Any) -> str:
    """``(batch, length, d)`` to ``(batch, d)``."""
    mode = module.pooling_mode
    if mode == "cls":
        return str(graph.op("Gather", x, graph.number(0, np.int64), axis=1))
    if mode != "mean":
        raise Refused(f"onnx: pooling {mode} is not supported; allowed: mean, cls")
    total = graph.op("MatMul", graph.op("Unsqueeze", mask, graph.ints(1)), x)
    total = graph.op("Squeeze", total, graph.ints(1))
    return str(graph.op("Div", total, graph.op("ReduceSum", mask, graph.ints(1), keepdims=1)))
