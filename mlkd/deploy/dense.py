"""The student as a plain Hugging Face encoder, in the layout that every version of its users reads.

sentence-transformers 3 to 6 and transformers 4.40 to 5 read the class names, the pooling keys and
the merges of the time of version 3; what version 6 writes, the earlier ones refuse.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mlkd.deploy.gate import Refused
from mlkd.encoders.backbone import Backbone, backbone_of, first_position, layers, longest_input
from mlkd.encoders.bottleneck import BottleneckEmbedding
from mlkd.encoders.coded import CodedEmbedding
from mlkd.encoders.words import whole_table
from mlkd.storage.files import write_json

_ROLES = ("unk", "sep", "pad", "cls", "mask", "bos", "eos")
_POOLING = {
    "mean": "mean_tokens",
    "cls": "cls_token",
    "max": "max_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}
"""What version 3 calls the ways to pool."""
_DENSE = ("in_features", "out_features", "bias", "activation_function")


def write_dense(model: SentenceTransformer, folder: Path) -> None:
    """Write a folder that ``SentenceTransformer`` and ``AutoModel`` load without mlkd.

    A recurrent layer is written once a pass, and the factorised word table as its product: the
    weights are as large as the student would be without sharing.

    Raises:
        Refused: It has a module behind the backbone that earlier versions do not know.
    """
    write_description(model, folder)
    weights = {name: x.contiguous() for name, x in unrolled(model).state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "sentence_bert_config.json",
           {"max_seq_length": longest(model), "do_lower_case": False})  # fmt: skip
    listing = [("", "Transformer")]
    for number, module in enumerate(list(model)[1:], start=1):
        kind = type(module).__name__
        listing.append((f"{number}_{kind}", kind))
        _write_module(module, folder / listing[-1][0])
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(listing)
    ]
    write_json(folder / "modules.json", entries)
    write_json(folder / "config_sentence_transformers.json",
           {"prompts": model.prompts, "default_prompt_name": model.default_prompt_name,
            "similarity_fn_name": "cosine"},
    )  # fmt: skip


def write_description(model: SentenceTransformer, folder: Path) -> None:
    """Write what tools read besides weights: ``config.json``, ``tokenizer.json`` and about it."""
    config, tokenizer = plain_config(model).to_dict(), model.tokenizer
    config["architectures"] = [type(backbone_of(model)).__name__]
    for key in ("_name_or_path", "dtype", "transformers_version"):
        config.pop(key, None)
    write_json(folder / "config.json", config)
    (folder / "tokenizer.json").write_text(
        json.dumps(tokenizer_state(tokenizer), ensure_ascii=False), encoding="utf-8"
    )
    found = {f"{role}_token": getattr(tokenizer, f"{role}_token", None) for role in _ROLES}
    special = {role: str(token) for role, token in found.items() if token is not None}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": longest(model),
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
            **special,
        },
    )


def tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Content of ``tokenizer.json``: neither cut nor padded, merges as the library had them first.

    tokenizers before 0.20 read a merge as one string only.
    """
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    state |= {"truncation": None, "padding": None}
    merges = state["model"].get("merges", [])
    if merges and not any(" " in part for merge in merges for part in merge):
        state["model"]["merges"] = [" ".join(merge) for merge in merges]
    return state


def longest(model: SentenceTransformer) -> int:
    """Longer inputs are cut (tokens)."""
    legal = longest_input(backbone_of(model))
    return min(model.max_seq_length or legal, legal)


def plain_config(model: SentenceTransformer) -> Any:
    """Configuration of the encoder that :func:`unrolled` gives."""
    shared = backbone_of(model)
    config = copy.deepcopy(shared.config)
    config.num_hidden_layers = len(layers(shared))
    config.max_position_embeddings = first_position(shared) + longest(model)
    config.type_vocab_size = 2
    return config


def unrolled(model: SentenceTransformer) -> Backbone:
    """The backbone with a layer a pass, a full word table and no pooler, on weights of its own.

    It has positions for the longest input and no more, so that no tool reads beyond it, and two
    equal type vectors, for tools that ask for one of a second segment.
    """
    shared, config = backbone_of(model), plain_config(model)
    plain = AutoModel.from_config(config, add_pooling_layer=False)
    # An assistant has the pooler of its teacher, which no sentence vector goes through.
    weights = {n: w for n, w in shared.state_dict().items() if not n.startswith("pooler.")}
    if isinstance(shared.get_input_embeddings(), BottleneckEmbedding | CodedEmbedding):
        prefix = "embeddings.word_embeddings."
        weights = {n: w for n, w in weights.items() if not n.startswith(prefix)}
        weights[f"{prefix}weight"] = whole_table(shared)
    positions, types = (f"embeddings.{x}_embeddings.weight" for x in ("position", "token_type"))
    weights[positions] = weights[positions][: config.max_position_embeddings]
    weights[types] = weights[types][:1].repeat(2, 1)
    plain.load_state_dict(weights, strict=True)
    return plain.eval()


def _write_module(module: Any, folder: Path) -> None:
    """A module behind the backbone, with the keys of version 3."""
    folder.mkdir()
    kind = type(module).__name__
    if kind == "Pooling":
        mode = module.pooling_mode
        if mode not in _POOLING:
            allowed = ", ".join(_POOLING)
            raise Refused(f"dense: pooling {mode} is not supported; allowed: {allowed}")
        config = {f"pooling_mode_{old}": new == mode for new, old in _POOLING.items()}
        width = {"word_embedding_dimension": module.embedding_dimension}
        write_json(folder / "config.json", width | config | {"include_prompt": True})
    elif kind == "Dense":
        config = {key: value for key, value in module.get_config_dict().items() if key in _DENSE}
        write_json(folder / "config.json", config)
        save_file(dict(module.state_dict()), folder / "model.safetensors")
    elif kind != "Normalize":
        raise Refused(f"dense: module {kind} is not supported; allowed: Pooling, Dense, Normalize")
