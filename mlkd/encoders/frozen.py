"""Frozen encoders behind one interface: sentences in, vectors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlkd.data.tokens import pad
from mlkd.encoders.backbone import SUPPORTED, backbone_of, longest_input
from mlkd.encoders.compact import mean_pool
from mlkd.encoders.folder import load_folder
from mlkd.machine.hardware import autocast, choose_kernels, device_of, resolve_precision
from mlkd.output.progress import progress
from mlkd.storage.files import default_prompt, encoder_fingerprint

_FORMAT = 1
"""Version of the vectors; a change computes cached ones anew."""
_TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 32768}
"""On a CPU what one layer hands to the next should stay in the cache (a quarter faster in fp32); a
GPU is to have more to do than its launches take."""


@dataclass(frozen=True)
class FrozenEncoder:
    """A sentence encoder in eval mode without gradients; it is no part of any module tree.

    It is loaded when its vectors are first asked for: often all are in a cache.

    Attributes:
        load: Opens the sentence-transformers model.
        fingerprint: Hash of everything that decides its vectors.
        max_tokens: Longer sentences are cut, and where the encoder has no more positions.
        embeddings_only: Give the masked mean of the embedding layer's output instead (A⁰ of Ding
            et al., 2022: the encoder with every layer removed).
        precision: ``fp32`` or ``bf16``.
        prompt: What it reads before each sentence. Embeddings alone are those of the sentence.
    """

    load: Callable[[], Any]
    fingerprint: str
    max_tokens: int
    embeddings_only: bool
    precision: str
    device: torch.device
    prompt: str = ""

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        max_tokens: int,
        accelerator: str = "auto",
        precision: str = "fp32",
        embeddings_only: bool = False,
        as_it_comes: bool = False,
    ) -> FrozenEncoder:
        """An encoder folder for inference, ``as_it_comes`` with torch's usual kernels.

        It reads the default prompt of the folder (see :func:`mlkd.encoders.folder.with_prompt`).
        """
        device = device_of(accelerator)
        precision = resolve_precision(precision, device)

        def load() -> Any:
            model = load_folder(folder).to(device).requires_grad_(False)
            if not as_it_comes:
                choose_kernels(backbone_of(model), precision, device)
            return model

        identity = f"{_FORMAT}-{encoder_fingerprint(folder)}-{max_tokens}-{precision}"
        if embeddings_only:
            identity += "-embeddings"
        prompt = "" if embeddings_only else default_prompt(folder)
        return cls(load, identity, max_tokens, embeddings_only, precision, device, prompt)

    @cached_property
    def model(self) -> Any:
        """The sentence-transformers model.

        Raises:
            UserError: The folder is no sentence encoder, or names foreign module classes.
        """
        return self.load()

    def loaded(self) -> FrozenEncoder:
        """The same, loaded by now: for whoever takes the time of what follows."""
        self.model  # noqa: B018
        return self

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        if self.embeddings_only:
            return int(self.model[0].get_embedding_dimension())
        return int(self.model.get_embedding_dimension())

    def encode(
        self,
        sentences: Sequence[str],
        *,
        description: str | None = None,
        write: Callable[[np.ndarray, np.ndarray], None] | None = None,
    ) -> np.ndarray:
        """Encode sentences in batches of similar length and about equally many tokens.

        Args:
            sentences: Texts; each is encoded once, in any order.
            description: Shows a progress bar under this name.
            write: Called with positions ``(n,)`` and vectors ``(n, d)`` of each finished batch
                instead of collecting them; then the result is empty.

        Returns:
            Vectors ``(len(sentences), d)``, float32.
        """
        collected = np.empty((0 if write else len(sentences), self.dimension), np.float32)
        if not len(sentences):
            return collected
        tokenizer = self.model.tokenizer
        ids = tokenizer(
            [self.prompt + sentence for sentence in sentences],
            truncation=True,
            max_length=self._longest,
            return_token_type_ids=False,
        )["input_ids"]
        lengths = np.array([len(row) for row in ids])
        flat = np.fromiter((i for row in ids for i in row), np.int64, lengths.sum())
        ends = lengths.cumsum()
        bar = progress(description, total=len(ids), unit=" sentences") if description else None
        for batch in _batches(lengths, _TOKENS_PER_BATCH[self.device.type]):
            block, mask = pad(flat, (ends - lengths)[batch], ends[batch], tokenizer.pad_token_id)
            vectors = self._forward(torch.from_numpy(block), torch.from_numpy(mask)).cpu().numpy()
            if write:
                write(batch, vectors)
            else:
                collected[batch] = vectors
            if bar is not None:
                bar.update(len(batch))
        if bar is not None:
            bar.close()
        return collected

    @cached_property
    def _longest(self) -> int:
        """Tokens of the longest input."""
        backbone = backbone_of(self.model)
        if backbone.config.model_type not in SUPPORTED:  # whose positions are counted otherwise
            return self.max_tokens
        return min(self.max_tokens, longest_input(backbone))

    @cached_property
    def _prompt_tokens(self) -> int:
        """Tokens before those of the sentence."""
        tokenizer = self.model.tokenizer
        ids = tokenizer(self.prompt)["input_ids"]
        return len(ids) - (ids[-1] in tokenizer.all_special_ids)

    @torch.inference_mode()
    def _forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Vectors ``(batch, d)`` of padded ids ``(batch, length)``, float32."""
        ids, mask = ids.to(self.device), mask.to(self.device)
        with autocast(self.precision, self.device):
            if self.embeddings_only:
                hidden = backbone_of(self.model).embeddings(input_ids=ids)
                return mean_pool(hidden.float(), mask)
            features: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
            if self.prompt:  # some models leave it out of their mean
                features["prompt_length"] = self._prompt_tokens
            vectors: Tensor = self.model(features)["sentence_embedding"]
            return vectors.float()


def _batches(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Cut the positions, longest first, into batches of about so many padded tokens."""
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, tokens // int(lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches
