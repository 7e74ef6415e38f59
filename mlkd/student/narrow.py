"""Narrow feed-forward parts: which of a layer's intermediate neurons a smaller student copies.

A layer computes ``W gelu(V x + a) + b`` with ``d`` neurons between; most of its parameters are in
``V`` and ``W``. Neurons leave where the others can stand in for them best on real sentences, and
``W`` and ``b`` of those that stay are fitted to the output of all. This is the layerwise problem of
optimal brain surgery with whole neurons for weights, as in ZipLM (Kurtic et al., NeurIPS 2023).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from mlkd.data.tokens import TokenStore
from mlkd.progress import progress
from mlkd.student.backbone import backbone_of, layers

_SENTENCES = 2048
_BATCH = 32
_ROUNDS = 64
"""Neurons leave in so many rounds; one at a time takes eight times as long for the same error."""
_DAMPING = 1e-4
"""Part of the mean variance that is added to each, so that neurons may depend on each other."""


@dataclass
class Moments:
    """Sums over tokens of a layer's intermediate activations."""

    tokens: int
    first: Tensor
    """``(d,)``."""
    second: Tensor
    """``(d, d)``."""

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """Mean ``(d,)`` and covariance ``(d, d)``, the latter damped."""
        mean = self.first / self.tokens
        covariance = self.second / self.tokens - mean.outer(mean)
        covariance.diagonal().add_(_DAMPING * covariance.diagonal().mean())
        return mean, covariance


def narrowed(source: SentenceTransformer, tokens: TokenStore, width: int) -> SentenceTransformer:
    """A copy of an encoder whose layers have ``width`` intermediate neurons.

    Args:
        source: Left as it is.
        tokens: The training sentences, cut by the source's tokenizer; some of them are encoded.
        width: Neurons that stay in each layer.
    """
    result = copy.deepcopy(source)
    backbone = backbone_of(result)
    for layer, moments in zip(layers(backbone), _moments(source, tokens), strict=True):
        _narrow(layer, moments, width)
    backbone.config.intermediate_size = width
    return result


@torch.no_grad()
def _moments(source: SentenceTransformer, tokens: TokenStore) -> list[Moments]:
    """Moments of each layer over sentences from all parts of the pairs."""
    stack, width = layers(backbone_of(source)), backbone_of(source).config.intermediate_size
    result = [
        Moments(0, torch.zeros(width).double(), torch.zeros(width, width).double()) for _ in stack
    ]
    available = len(tokens.offsets) - 1
    chosen = np.unique(np.linspace(0, available - 1, min(_SENTENCES, available)).astype(np.int64))
    lengths = tokens.offsets[chosen + 1] - tokens.offsets[chosen]
    chosen = chosen[np.argsort(lengths, kind="stable")]
    bar = progress("choose neurons", total=len(chosen), unit=" sentences")
    with _listening(stack) as heard:
        for start in range(0, len(chosen), _BATCH):
            batch = chosen[start : start + _BATCH]
            block, mask = (torch.from_numpy(part) for part in tokens.padded(batch))
            source({"input_ids": block, "attention_mask": mask})
            for sums, activations in zip(result, heard, strict=True):
                rows = activations[mask.bool()]
                sums.tokens += len(rows)
                sums.first += rows.sum(0)
                sums.second += rows.T @ rows
            bar.update(len(batch))
    bar.close()
    return result


@contextmanager
def _listening(stack: nn.ModuleList) -> Iterator[list[Tensor]]:
    """The intermediate activations ``(batch, length, d)`` of each layer in the last forward."""
    heard: list[Tensor] = [torch.empty(0)] * len(stack)

    def listen(position: int, layer: Any) -> Any:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            heard[position] = inputs[0]

        return layer.output.dense.register_forward_pre_hook(keep)

    handles = [listen(position, layer) for position, layer in enumerate(stack)]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _narrow(layer: Any, moments: Moments, width: int) -> None:
    """Leave ``width`` neurons in a layer."""
    into, out, norm = layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm
    mean, covariance = moments.mean_and_covariance()
    weight = out.weight.double()  # (hidden, d)
    # Errors count as much as the LayerNorm behind the output lets them through.
    kept = neurons_to_keep(covariance, weight * norm.weight.double()[:, None], width)
    fitted = torch.linalg.solve(covariance[kept][:, kept], covariance[kept] @ weight.T).T
    bias = out.bias.double() + weight @ mean - fitted @ mean[kept]
    layer.intermediate.dense = _linear(into.weight[kept], into.bias[kept])
    layer.output.dense = _linear(fitted, bias)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer with these parameters, in float32."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


def neurons_to_keep(covariance: Tensor, weight: Tensor, width: int) -> Tensor:
    """Backward elimination of the neurons that the others replace best.

    Without neuron ``j`` and with the others' output weights fitted anew the squared error grows by
    ``|w_j|² / (C⁻¹)_jj``, ``w_j`` being its own output weights and ``C`` the covariance of the
    neurons that are left.

    Args:
        covariance: C of the activations ``(d, d)``, regular.
        weight: Output weights ``(hidden, d)``.
        width: How many stay.

    Returns:
        Their positions ``(width,)``, ascending.
    """
    inverse, weight = torch.linalg.inv(covariance), weight.clone()
    alive = torch.arange(len(covariance))
    step = max(1, (len(alive) - width) // _ROUNDS)
    while len(alive) > width:
        growth = weight.square().sum(0) / inverse.diagonal()
        order = growth.argsort(stable=True)
        leaving = order[: min(step, len(alive) - width)]
        staying = order[len(leaving) :].sort().values
        # Inverse and fitted weights of those that stay, by the inverse of a block matrix.
        ratio = torch.linalg.solve(inverse[leaving][:, leaving], inverse[leaving][:, staying])
        weight = weight[:, staying] - weight[:, leaving] @ ratio
        inverse = inverse[staying][:, staying] - inverse[staying][:, leaving] @ ratio
        alive = alive[staying]
    return alive
