"""No work on padding: the tokens of a batch as one row, put apart only where they attend.

Embeddings, projections, feed-forward layers and norms treat each token on its own. So a batch goes
through the backbone's own forward as a single sentence without padding, with an attention function
(an interface of transformers) that lays its queries, keys and values out as sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mlkd.encoders.backbone import Backbone, first_position

_PACKED = "packed_"
"""What the names of these attention functions begin with; the rest is the kernel."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a row belong.

    Attributes:
        places: ``(T,)``, the place of each token in the padded block, read line by line.
        block: Sentences and longest length ``(U, S)``.
        read: ``(U, 1, 1, S)``, false at padding.
    """

    places: Tensor
    block: tuple[int, int]
    read: Tensor


def pack_attention(backbone: Backbone) -> None:
    """Let the backbone attend as :func:`token_vectors` needs it, with the kernel it has now."""
    kernel = backbone.config._attn_implementation.removeprefix(_PACKED)
    backbone.set_attn_implementation(_PACKED + kernel)


def token_vectors(backbone: Backbone, ids: Tensor, mask: Tensor) -> Tensor:
    """Last hidden states ``(U, S, d)`` of token ids and mask ``(U, S)``, zero at padding.

    The backbone has been through :func:`pack_attention`.
    """
    places = mask.flatten().nonzero().squeeze(1)
    packing = Packing(places, (ids.shape[0], ids.shape[1]), mask.bool()[:, None, None, :])
    positions = mask.cumsum(1) - 1 + first_position(backbone)
    row = ids.flatten()[places].unsqueeze(0)
    hidden = backbone(
        input_ids=row,
        position_ids=positions.flatten()[places].unsqueeze(0),
        token_type_ids=torch.zeros_like(row),
        packing=packing,
    ).last_hidden_state
    return _spread(hidden[0], packing)


def _spread(tokens: Tensor, packing: Packing) -> Tensor:
    """``(T, ...)`` to the padded block ``(U, S, ...)``."""
    sentences, length = packing.block
    block = tokens.new_zeros(sentences * length, *tokens.shape[1:])
    return block.index_copy_(0, packing.places, tokens).unflatten(0, (sentences, length))


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    packing: Packing,
    kernel: Callable[..., Any],
    dropout: float,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within sentences: ``(1, heads, T, width)`` to ``(1, T, heads, width)``."""
    apart = (_spread(x[0].transpose(0, 1), packing).transpose(1, 2) for x in (query, key, value))
    mixed, _ = kernel(module, *apart, packing.read, dropout=dropout, scaling=scaling)
    return mixed.flatten(0, 1).index_select(0, packing.places).unsqueeze(0), None


def _plain(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    read: Tensor,
    *,
    dropout: float,
    scaling: float,
) -> tuple[Tensor, None]:
    """Attention of ``(U, heads, S, width)`` in single steps; gives ``(U, S, heads, width)``."""
    scores = query @ key.transpose(2, 3) * scaling
    scores = scores + torch.where(read, 0.0, torch.finfo(scores.dtype).min).to(scores.dtype)
    shares = nn.functional.softmax(scores, dim=-1)
    shares = nn.functional.dropout(shares, dropout, module.training)
    return (shares @ value).transpose(1, 2), None


_KERNELS: dict[str, Callable[..., Any]] = {"eager": _plain, "sdpa": sdpa_attention_forward}
for _name, _kernel in _KERNELS.items():
    AttentionInterface.register(_PACKED + _name, partial(_attend, kernel=_kernel))
    AttentionMaskInterface.register(_PACKED + _name, lambda *args, **kwargs: None)
