"""Loss terms: one file each; :func:`build_loss` puts together what the configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlkd.config.losses import LossConfig
from mlkd.losses.mcl import MultilingualContrastive
from mlkd.losses.pair_mse import PairMSE
from mlkd.losses.vectors import PairVectors

TERMS: dict[str, Callable[[Any], nn.Module]] = {
    "pair_mse": lambda config: PairMSE(),
    "mcl": lambda config: MultilingualContrastive(config.mode, config.temperature),
}
"""Name of a term in ``conf/loss`` and how to build it from its section."""


class WeightedSum(nn.Module):
    """The weighted sum of named terms."""

    def __init__(self, terms: dict[str, nn.Module], weights: dict[str, float]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict(terms)
        self.weights = weights

    def forward(self, vectors: PairVectors) -> tuple[Tensor, dict[str, Tensor]]:
        """Give the loss and each unweighted term by its name, all scalars."""
        return weighted_sum(
            {name: (self.weights[name], term(vectors)) for name, term in self.terms.items()}
        )


def weighted_sum(terms: Mapping[str, tuple[float, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss that weights and values of named terms give, and each value by its name, to log."""
    total = torch.stack([weight * value for weight, value in terms.values()]).sum()
    return total, {name: value.detach() for name, (_, value) in terms.items()}


def build_loss(config: LossConfig) -> WeightedSum:
    """Put together the terms that the configuration names."""
    sections = {name: getattr(config, name) for name in TERMS}
    chosen = {name: section for name, section in sections.items() if section is not None}
    return WeightedSum(
        {name: TERMS[name](section) for name, section in chosen.items()},
        {name: section.weight for name, section in chosen.items()},
    )
