"""Narrow feed-forward parts: which of a layer's intermediate neurons a smaller student copies.

A layer computes ``W f(V x + a) + b`` with ``d`` neurons between; most of its parameters are in
``V`` and ``W``. Neurons leave where the others can stand in for them best on real sentences, and
``W`` and ``b`` of those that stay are fitted to the output of all. This is the layerwise problem of
optimal brain surgery with whole neurons for weights, as in ZipLM (Kurtic et al., NeurIPS 2023).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mlkd.data.tokens import TokenStore
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.output.progress import progress

_SENTENCES = 2048
_BATCH = 32
_ROUNDS = 64
"""Neurons leave in at most so many rounds; one a round takes seven times as long and finds the
same."""
_DAMPING = 1e-4
"""Part of the mean variance that is added to each, so that neurons may depend on each other."""


class Moments:
    """Sums over tokens of a layer's ``d`` intermediate activations."""

    def __init__(self, width: int) -> None:
        self.tokens = 0
        self.first = torch.zeros(width, dtype=torch.double)
        self.second = torch.zeros(width, width, dtype=torch.double)

    def add(self, activations: Tensor) -> None:
        """Count the tokens of ``(batch, length, d)``, none of them padding."""
        # In float64 from here: the square of a large mean is subtracted later.
        rows = activations.flatten(0, 1).double()
        self.tokens += len(rows)
        self.first += rows.sum(0)
        self.second += rows.T @ rows

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
        tokens: The sentences of the pairs, cut by the source's tokenizer; some of them are encoded.
        width: Neurons that stay in each layer, at most as many as there are.
    """
    result = copy.deepcopy(source)
    backbone = backbone_of(result)
    for layer, moments in _moments(result, tokens).items():
        _narrow(layer, moments, width)
    backbone.config.intermediate_size = width
    return result


@torch.no_grad()
def _moments(model: SentenceTransformer, tokens: TokenStore) -> dict[nn.Module, Moments]:
    """Moments of each stored layer, all of its passes together, over sentences of all the pairs."""
    width = backbone_of(model).config.intermediate_size
    result = {layer: Moments(width) for layer in layers(backbone_of(model))}
    handles = [_listen(layer, moments) for layer, moments in result.items()]
    available = len(tokens.offsets) - 1
    chosen = np.unique(np.linspace(0, available - 1, min(_SENTENCES, available)).astype(np.int64))
    lengths = tokens.offsets[chosen + 1] - tokens.offsets[chosen]
    bar = progress("choose neurons", total=len(chosen), unit=" sentences")
    for length in np.unique(lengths):  # sentences of one length need no padding
        alike = chosen[lengths == length]
        for start in range(0, len(alike), _BATCH):
            ids, mask = (torch.from_numpy(x) for x in tokens.padded(alike[start : start + _BATCH]))
            model({"input_ids": ids, "attention_mask": mask})
            bar.update(len(ids))
    bar.close()
    for handle in handles:
        handle.remove()
    return result


def _listen(layer: Any, moments: Moments) -> RemovableHandle:
    """Let each forward of a layer add its intermediate activations."""

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        moments.add(inputs[0])

    return layer.output.dense.register_forward_pre_hook(add)


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
    inverse = torch.linalg.inv(covariance)
    alive = torch.arange(len(covariance))
    step = math.ceil((len(alive) - width) / _ROUNDS)
    while len(alive) > width:
        leaving = _leaving(inverse, weight, min(step, len(alive) - width))
        gone = torch.zeros(len(alive), dtype=torch.bool)
        gone[leaving] = True
        staying = (~gone).nonzero().squeeze(1)
        # Inverse and fitted weights of those that stay, by the inverse of a block matrix.
        ratio = torch.linalg.solve(inverse[leaving][:, leaving], inverse[leaving][:, staying])
        weight = weight[:, staying] - weight[:, leaving] @ ratio
        inverse = inverse[staying][:, staying] - inverse[staying][:, leaving] @ ratio
        alive = alive[staying]
    return alive


def _leaving(inverse: Tensor, weight: Tensor, count: int) -> list[int]:
    """The neurons of a round, among the ``4 * count`` that are cheapest before it.

    One after the other, so that neurons that replace each other do not leave together.
    """
    growth = weight.square().sum(0) / inverse.diagonal()
    candidates = growth.argsort(stable=True)[: 4 * count]
    inverse, weight = inverse[candidates][:, candidates], weight[:, candidates]
    chosen: list[int] = []
    for _ in range(count):
        growth = weight.square().sum(0) / inverse.diagonal()
        growth[chosen] = torch.inf
        last = int(growth.argmin())
        chosen.append(last)
        ratio = inverse[last] / inverse[last, last]
        weight = weight - weight[:, last].outer(ratio)
        inverse = inverse - inverse[last].outer(ratio)
    return candidates[chosen].tolist()
