"""The forward pass of training: sentence vectors, and what losses want to see on the way to them.

No work on padding: embeddings, projections, feed-forward layers and norms treat each token on its
own. So a batch goes through the backbone's own layers as a single sentence without padding, with an
attention function (an interface of transformers) that lays its queries, keys and values out as
sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mlkd.encoders.backbone import Backbone, backbone_of, first_position, layers

_PACKED = "packed_"
"""What the names of these attention functions begin with; the rest is the kernel."""


@dataclass(frozen=True)
class Taps:
    """What a forward pass gives; what is not asked for is not computed.

    Layers are counted as they are executed, from 1; with recurrence the K stored layers are 1 to K
    in the first pass, K + 1 to 2 K in the second. Hidden layer 0 is the embedding layer's output.
    """

    sentence: bool = True
    """Whether sentence vectors are wanted."""
    hidden: frozenset[int] = frozenset()
    """Layers whose token states are wanted."""
    attention: frozenset[int] = frozenset()
    """Layers whose attention probabilities are wanted."""


@dataclass(frozen=True)
class Encoded:
    """What a forward pass has given.

    Attributes:
        hidden: Token states ``(T, d)`` of the tapped layers. The T tokens are those of all
            sentences one after the other, in the order of ``mask.nonzero()``.
        attention: Attention probabilities ``(U, heads, S, S)`` of the tapped layers, after the
            softmax and before dropout; zero where the query or the key is padding.
    """

    vectors: Tensor | None
    hidden: dict[int, Tensor]
    attention: dict[int, Tensor]

    @property
    def sentence(self) -> Tensor:
        """Sentence vectors ``(U, d)``.

        Raises:
            LookupError: They were not asked for.
        """
        if self.vectors is None:
            raise LookupError("sentence vectors were not asked for")
        return self.vectors


SENTENCE = Taps()
"""Sentence vectors alone."""


def encode(model: SentenceTransformer, ids: Tensor, mask: Tensor, taps: Taps = SENTENCE) -> Encoded:
    """Run an encoder over the U sentences of a batch.

    Values and gradients are those of the model's own forward. A layer whose attention is tapped
    attends by single steps, whatever the kernel of the others; layers behind the last tap are not
    run if no sentence vectors are wanted.

    Args:
        model: BERT-like or XLM-R-like, whole or a student; it is left as it is.
        ids: Token ids ``(U, S)``.
        mask: 1 where ``ids`` is no padding, at least once in each row ``(U, S)``.
        taps: What is wanted.

    Raises:
        ValueError: A layer is tapped that the model does not have.
    """
    backbone = backbone_of(model)
    depth = len(layers(backbone))
    if not taps.hidden <= {*range(depth + 1)} or not taps.attention <= {*range(1, depth + 1)}:
        raise ValueError(f"{taps}: the encoder runs layers 1 to {depth}")
    last = depth if taps.sentence else max(taps.hidden | taps.attention, default=0)
    packing = _Packing.of(mask, taps.attention)
    with _packed_attention(backbone):
        hidden = _embedded(backbone, ids, mask, packing)
        kept = {0: hidden[0]} if 0 in taps.hidden else {}
        for number, layer in enumerate(layers(backbone)[:last], start=1):
            packing.layer = number
            hidden = layer(hidden, None, packing=packing)
            if number in taps.hidden:
                kept[number] = hidden[0]
    if not taps.sentence:
        return Encoded(None, kept, packing.probabilities)
    features: Any = {"attention_mask": mask, "token_embeddings": _spread(hidden[0], packing)}
    for module in list(model)[1:]:
        features = module(features)
    return Encoded(features["sentence_embedding"], kept, packing.probabilities)


@dataclass
class _Packing:
    """Where the tokens of a row belong, and what is kept on the way.

    Attributes:
        places: ``(T,)``, the place of each token in the padded block, read line by line.
        block: Sentences and longest length ``(U, S)``.
        read: ``(U, 1, 1, S)``, false at padding.
        tapped: Layers whose attention is kept.
        layer: The layer that is being run.
        probabilities: Attention ``(U, heads, S, S)`` by layer.
    """

    places: Tensor
    block: tuple[int, int]
    read: Tensor
    tapped: frozenset[int]
    layer: int = 0
    probabilities: dict[int, Tensor] = field(default_factory=dict)
    _added: dict[torch.dtype, Tensor] = field(default_factory=dict)

    @cached_property
    def padding(self) -> Tensor:
        """``(U, 1, S, 1)``, true at padding."""
        return ~self.read.transpose(2, 3)

    def added(self, kind: torch.dtype) -> Tensor:
        """What hides padding when it is added to scores of some type ``(U, 1, 1, S)``."""
        if kind not in self._added:
            least = torch.finfo(kind).min
            self._added[kind] = torch.where(self.read, 0.0, least).to(kind)
        return self._added[kind]

    @classmethod
    def of(cls, mask: Tensor, tapped: frozenset[int]) -> _Packing:
        """The packing of sentences whose mask is ``(U, S)``."""
        places = mask.flatten().nonzero().squeeze(1)
        return cls(places, (mask.shape[0], mask.shape[1]), mask.bool()[:, None, None, :], tapped)


@contextmanager
def _packed_attention(backbone: Backbone) -> Iterator[None]:
    """Let the backbone attend within the sentences of a row, with the kernel that it has."""
    config = backbone.config
    kernel = config._attn_implementation
    config._attn_implementation = _PACKED + kernel
    try:
        yield
    finally:
        config._attn_implementation = kernel


def _embedded(backbone: Backbone, ids: Tensor, mask: Tensor, packing: _Packing) -> Tensor:
    """The embedding layer's output ``(1, T, d)``; positions are counted within each sentence."""
    positions = mask.cumsum(1) - 1 + first_position(backbone)
    row = ids.flatten()[packing.places].unsqueeze(0)
    hidden: Tensor = backbone.embeddings(
        input_ids=row,
        position_ids=positions.flatten()[packing.places].unsqueeze(0),
        token_type_ids=torch.zeros_like(row),
    )
    return hidden


def _spread(tokens: Tensor, packing: _Packing) -> Tensor:
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
    packing: _Packing,
    kernel: Callable[..., Any],
    dropout: float,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within sentences: ``(1, heads, T, width)`` to ``(1, T, heads, width)``."""
    apart = (_spread(x[0].transpose(0, 1), packing).transpose(1, 2) for x in (query, key, value))
    if packing.layer in packing.tapped:
        kernel = _plain
    hides = packing.added(query.dtype) if kernel is _plain else packing.read
    mixed, shares = kernel(module, *apart, hides, dropout=dropout, scaling=scaling)
    if packing.layer in packing.tapped:
        # A query at padding attends to something, too.
        packing.probabilities[packing.layer] = shares.masked_fill(packing.padding, 0.0)
    return mixed.flatten(0, 1).index_select(0, packing.places).unsqueeze(0), None


def _plain(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    hides: Tensor,
    *,
    dropout: float,
    scaling: float,
) -> tuple[Tensor, Tensor]:
    """Attention of ``(U, heads, S, width)`` in single steps; ``hides`` is added to the scores.

    Gives ``(U, S, heads, width)`` and the probabilities before dropout ``(U, heads, S, S)``.
    """
    scores = query @ key.transpose(2, 3) * scaling
    scores = scores + hides
    shares = nn.functional.softmax(scores, dim=-1)
    mixed = nn.functional.dropout(shares, dropout, module.training) @ value
    return mixed.transpose(1, 2), shares


_KERNELS: dict[str, Callable[..., Any]] = {"eager": _plain, "sdpa": sdpa_attention_forward}
for _name, _kernel in _KERNELS.items():
    AttentionInterface.register(_PACKED + _name, partial(_attend, kernel=_kernel))
