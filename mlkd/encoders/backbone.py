"""What the surgery needs to know of a Hugging Face encoder (BERT-like or XLM-R-like)."""

from __future__ import annotations

from typing import Any

from torch import nn

from mlkd.output.errors import UserError

Backbone = Any
"""A Hugging Face encoder; the library's types call every part of it "Tensor or Module"."""

SUPPORTED = ("bert", "roberta", "xlm-roberta")


def check_supported(backbone: Backbone, role: str = "assistant") -> None:
    """Refuse an architecture whose parts are not where the surgery looks for them.

    Args:
        backbone: A Hugging Face encoder.
        role: What the message calls it.

    Raises:
        UserError: The model type is none of :data:`SUPPORTED`.
    """
    kind = backbone.config.model_type
    if kind not in SUPPORTED:
        raise UserError(
            f"{role}: model type {kind} is not supported; allowed: {', '.join(SUPPORTED)}"
        )


def layers(backbone: Backbone) -> nn.ModuleList:
    """The encoder layers in the order in which they are run."""
    stack: nn.ModuleList = backbone.encoder.layer
    return stack


def set_layers(backbone: Backbone, stored: list[nn.Module], recurrence: int) -> None:
    """Let the backbone run ``stored`` in order, ``recurrence`` times over.

    The same objects stand in the list again, so the weights are shared by construction and the
    backbone's own forward runs unchanged (Ding et al., 2022, section 3.3).
    """
    backbone.encoder.layer = nn.ModuleList(stored * recurrence)
    backbone.config.num_hidden_layers = len(stored) * recurrence


def longest_input(backbone: Backbone) -> int:
    """Longest legal input in tokens."""
    positions: int = backbone.config.max_position_embeddings
    return positions - first_position(backbone)


def first_position(backbone: Backbone) -> int:
    """Position of a sentence's first token: XLM-R-like ones count from behind the padding id."""
    config = backbone.config
    return 0 if config.model_type == "bert" else int(config.pad_token_id) + 1


def set_dropout(model: nn.Module, rate: float) -> None:
    """Set hidden and attention dropout of every layer."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate


def backbone_of(model: Any) -> Backbone:
    """The Hugging Face encoder inside a sentence-transformers model."""
    return model[0].model
