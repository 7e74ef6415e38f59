"""Products of fp32 matrices by oneDNN, for processors on which MKL, torch's choice, is slow."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def product(
    rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """``rows @ weight.T + bias``, of ``[..., in]``, ``[out, in]`` and ``[out]``."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")  # type: ignore[no-any-return]


class _Linear(torch.autograd.Function):
    """``rows @ weight.T + bias`` and its gradients, each product by oneDNN."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(rows, weight)
        return product(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, len(weight))
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()).view_as(rows) if of_rows else None,
            product(gradient.t(), rows.reshape(-1, rows.shape[-1]).t()) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


class OneDnnLinear(nn.Linear):
    """A linear layer that asks oneDNN for its fp32 products on a CPU; all else as it was."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Widen or narrow ``[..., in_features]``."""
        fp32 = input.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if fp32 and input.device.type == "cpu":
            return _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]
        return super().forward(input)


def use_onednn(model: nn.Module) -> None:
    """Have the linear layers of a model, whose parameters stay what they are, use oneDNN."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear
