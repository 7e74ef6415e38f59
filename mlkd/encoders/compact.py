"""The sentence-transformers module of a student: compact on disk, unrolled when run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import InputModule
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mlkd.encoders.backbone import layers, set_layers
from mlkd.encoders.bottleneck import BottleneckEmbedding
from mlkd.encoders.coded import CodedEmbedding

MODEL_TYPE = "mlkd_compact"
"""Model type of a folder whose weights are not those of its backbone's architecture: transformers
refuses it, instead of filling up what it misses with random numbers."""


class CompactTransformer(InputModule):
    """A Hugging Face encoder whose word table may be narrow or coded, and whose layers recurrent.

    Attributes:
        model: The backbone; its layer list holds each stored layer ``recurrence`` times.
        bottleneck: Width of the factorised word table, or None.
        codes: Codes a row of the coded word table, or None.
        recurrence: How often the stored layers are run.
        max_seq_length: Longer inputs are cut (tokens).
    """

    config_file_name = "mlkd_config.json"
    config_keys: list[str] = [  # noqa: RUF012 - declared so by the base class
        "bottleneck",
        "codes",
        "recurrence",
        "max_seq_length",
    ]

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        bottleneck: int | None = None,
        codes: int | None = None,
        recurrence: int,
        max_seq_length: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer: PreTrainedTokenizerBase = tokenizer
        self.bottleneck = bottleneck
        self.codes = codes
        self.recurrence = recurrence
        self.max_seq_length = max_seq_length

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Tensor | Any]:
        """Tokenise sentences into padded ``input_ids`` and ``attention_mask``."""
        texts = [(prompt or "") + text for text in inputs]
        encoded = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_seq_length,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        return dict(encoded)

    def forward(self, features: dict[str, Tensor | Any], **kwargs: Any) -> dict[str, Tensor | Any]:
        """Add ``token_embeddings`` ``(batch, length, hidden)`` to the features."""
        output = self.model(
            input_ids=features["input_ids"], attention_mask=features["attention_mask"]
        )
        features["token_embeddings"] = output.last_hidden_state
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the token vectors."""
        return int(self.model.config.hidden_size)

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write backbone config, stored weights (each once) and tokenizer into a folder."""
        folder = Path(output_path)
        folder.mkdir(parents=True, exist_ok=True)
        stored = len(layers(self.model)) // self.recurrence
        config = self.model.config.to_dict()
        config.pop("_name_or_path", None)
        config.update(num_hidden_layers=stored, architectures=[type(self.model).__name__])
        if self.bottleneck is not None or self.codes is not None or self.recurrence > 1:
            config.update(model_type=MODEL_TYPE, backbone=config["model_type"])
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        weights = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self.model.state_dict().items()
            if not _is_repeat(name, stored)
        }
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        self.save_config(output_path)
        self.save_tokenizer(output_path)

    @classmethod
    def load(  # type: ignore[override]  # what is not named here does not apply
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        backend: str = "torch",
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> CompactTransformer:
        """Load what :meth:`save` wrote, from a folder or the hub; weights from safetensors only.

        Raises:
            ValueError: Another backend than torch is asked for, or settings of a model, tokenizer
                or configuration, none of which a compact student takes.
            OSError: There is no such folder.
        """
        if backend != "torch":
            raise ValueError(f"backend={backend}: a compact student has torch; export it")
        asked = {"model": model_kwargs, "processor": processor_kwargs, "config": config_kwargs}
        for name, given in asked.items():
            if given:
                raise ValueError(
                    f"{name}_kwargs={dict(given)}: a compact student takes none; export it"
                )
        found = cls.load_dir_path(
            model_name_or_path, subfolder, token, cache_folder, revision, local_files_only
        )
        if found is None:
            place = Path(model_name_or_path, subfolder)
            raise OSError(f"{place}: no such folder, nor a model of the hub that can be had")
        folder = Path(found)
        settings = json.loads((folder / cls.config_file_name).read_text())
        values = json.loads((folder / "config.json").read_text())
        kind = values.pop("backbone", values["model_type"])  # mlkd 0.1 wrote no other type
        config = AutoConfig.for_model(**values | {"model_type": kind})
        model = AutoModel.from_config(config, add_pooling_layer=False, trust_remote_code=False)
        rows, width = config.vocab_size, config.hidden_size
        if (narrow := settings["bottleneck"]) is not None:
            model.set_input_embeddings(
                BottleneckEmbedding(rows, narrow, width, config.pad_token_id)
            )
        elif (parts := settings.get("codes")) is not None:
            model.set_input_embeddings(CodedEmbedding(rows, parts, width))
        model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
        set_layers(model, list(layers(model)), settings["recurrence"])
        tokenizer = AutoTokenizer.from_pretrained(
            folder, config=config, local_files_only=True, trust_remote_code=False
        )
        return cls(model.eval(), tokenizer, **settings)


def _is_repeat(name: str, stored: int) -> bool:
    """Whether a state key belongs to a second or later pass over the stored layers."""
    parts = name.split(".")
    return parts[:2] == ["encoder", "layer"] and int(parts[2]) >= stored


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Masked mean over tokens: ``(batch, length, d)`` and ``(batch, length)`` to ``(batch, d)``."""
    weight = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(torch.finfo(torch.float32).tiny)
