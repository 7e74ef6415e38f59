"""The student as a GGUF file, which llama.cpp runs as a BERT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoConfig, AutoModel, AutoTokenizer

from mlkd.deploy.dense import longest, plain_config, unrolled
from mlkd.deploy.gate import Refused
from mlkd.encoders.backbone import Backbone, backbone_of
from mlkd.encoders.compact import CompactTransformer

_BLOCK = 32
"""Numbers that share a scale in ``q8_0``; rows of another length stay float32."""
_ACTIVATIONS = ("gelu", "gelu_new")
"""llama.cpp computes both in their tanh form."""


_POOLED: dict[gguf.PoolingType, Any] = {
    gguf.PoolingType.MEAN: "mean",
    gguf.PoolingType.CLS: "cls",
}


def write_gguf(model: SentenceTransformer, file: Path, *, q8: bool) -> None:
    """Write weights, vocabulary and settings into one file.

    Args:
        model: A sentence encoder of BERT's architecture with a WordPiece vocabulary, which may be
            of any size and order, and mean or CLS pooling.
        file: What is written.
        q8: Whether to store matrices in ``q8_0``, int8 with a scale for 32 numbers.

    Raises:
        Refused: llama.cpp would not run it as it is.
    """
    pooling = _check(model)
    config, plain = plain_config(model), unrolled(model)
    writer = gguf.GGUFWriter(file, "bert")
    writer.add_name("mlkd student")
    writer.add_context_length(longest(model))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if q8 else gguf.LlamaFileType.ALL_F32)
    _add_vocabulary(writer, model)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config.num_hidden_layers)
    for name, tensor in plain.state_dict().items():
        array = tensor.numpy()
        stored = str(names.get_name(name, try_suffixes=(".weight", ".bias")))
        if q8 and _is_quantised(name, array):
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(stored, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(stored, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(file: Path, config: Any) -> Backbone:
    """The encoder whose weights a file holds, as float32.

    Args:
        file: What :func:`write_gguf` wrote.
        config: See :func:`mlkd.deploy.dense.plain_config`.
    """
    plain = AutoModel.from_config(config, add_pooling_layer=False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config.num_hidden_layers)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    weights = {}
    for name, tensor in plain.state_dict().items():
        found = stored[str(names.get_name(name, try_suffixes=(".weight", ".bias")))]
        values = gguf.quants.dequantize(found.data, found.tensor_type).reshape(tensor.shape)
        weights[name] = torch.from_numpy(values.copy())
    plain.load_state_dict(weights, strict=True)
    return plain.eval()


def open_gguf(folder: Path, file: Path) -> SentenceTransformer:
    """The encoder of a file in PyTorch, with the tokenizer and the settings beside it.

    It shows what the weights are, not what llama.cpp makes of them or of a text.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    fields = gguf.GGUFReader(file).fields
    transformer = CompactTransformer(
        read_gguf(file, config),
        tokenizer,
        bottleneck=None,
        recurrence=1,
        max_seq_length=int(fields["bert.context_length"].contents()),
    )
    pooled = gguf.PoolingType(fields["bert.pooling_type"].contents())
    pooling = Pooling(config.hidden_size, pooling_mode=_POOLED[pooled])
    return SentenceTransformer(modules=[transformer, pooling], device="cpu").eval()


def _is_quantised(name: str, array: np.ndarray) -> bool:
    small = "position" in name or "token_type" in name
    return array.ndim == 2 and array.shape[1] % _BLOCK == 0 and not small


def _check(model: SentenceTransformer) -> gguf.PoolingType:
    """How vectors are pooled, if llama.cpp can do it.

    Raises:
        Refused: It cannot run the encoder.
    """
    config = backbone_of(model).config
    tail = [type(module).__name__ for module in list(model)[1:]]
    kind = json.loads(model.tokenizer.backend_tokenizer.to_str())["model"]["type"]
    if config.model_type != "bert" or kind != "WordPiece":
        raise Refused(
            f"gguf: {config.model_type} with {kind} is not supported; allowed: bert with WordPiece"
        )
    if config.hidden_act not in _ACTIVATIONS:
        raise Refused(f"gguf: activation {config.hidden_act} is not supported; allowed: gelu")
    modes = {mode: pooling for pooling, mode in _POOLED.items()}
    mode = model[1].pooling_mode if tail[:1] == ["Pooling"] else None
    if tail not in (["Pooling"], ["Pooling", "Normalize"]) or mode not in modes:
        raise Refused("gguf: allowed behind the encoder: mean or CLS pooling, Normalize")
    return modes[mode]


def _bert_normalizer(tokenizer: Any) -> dict[str, Any]:
    """The state of BERT's normaliser, which llama.cpp's WordPiece follows.

    Raises:
        Refused: There is none.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())["normalizer"] or {}
    for part in state.get("normalizers", [state]):
        if part.get("type") == "BertNormalizer":
            return dict(part)
    raise Refused("gguf: only vocabularies with BERT's normaliser are supported")


def _add_vocabulary(writer: gguf.GGUFWriter, model: SentenceTransformer) -> None:
    """Pieces as llama.cpp's WordPiece has them: marked are those that begin a word."""
    tokenizer = model.tokenizer
    prefix = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["continuing_subword_prefix"]
    special = set(tokenizer.all_special_tokens)
    pieces, kinds = [], []
    for piece in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))):
        if piece in special:
            pieces.append(piece)
            kinds.append(gguf.TokenType.CONTROL)
        else:
            inside = piece.startswith(prefix) and piece != prefix
            pieces.append(piece.removeprefix(prefix) if inside else f"▁{piece}")
            kinds.append(gguf.TokenType.NORMAL)
    normalizer = _bert_normalizer(tokenizer)
    writer.add_tokenizer_model("bert")
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", normalizer["lowercase"])
    strips = normalizer["strip_accents"]  # null: where it makes lower case
    writer.add_bool(
        "tokenizer.ggml.normalizer.strip_accents",
        normalizer["lowercase"] if strips is None else strips,
    )
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_bos_token_id(tokenizer.cls_token_id)
    writer.add_eos_token_id(tokenizer.sep_token_id)
    writer.add_sep_token_id(tokenizer.sep_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_mask_token_id(tokenizer.mask_token_id)
