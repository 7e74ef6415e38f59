"""The word table of an encoder, whatever stands in for a plain one."""

from __future__ import annotations

from torch import Tensor, nn

from mlkd.encoders.backbone import Backbone
from mlkd.encoders.bottleneck import BottleneckEmbedding
from mlkd.encoders.coded import CodedEmbedding


def word_table(backbone: Backbone) -> nn.Embedding:
    """The rows of the vocabulary: the word embedding, or the narrow table of one.

    A coded embedding has none.
    """
    words = backbone.get_input_embeddings()
    table: nn.Embedding = words.table if isinstance(words, BottleneckEmbedding) else words
    return table


def set_word_table(backbone: Backbone, table: nn.Module) -> None:
    """Put another table in the place of :func:`word_table`."""
    words = backbone.get_input_embeddings()
    if isinstance(words, BottleneckEmbedding):
        words.table = table  # type: ignore[assignment]  # or rows of one
    else:
        backbone.set_input_embeddings(table)


def whole_table(backbone: Backbone) -> Tensor:
    """The full table ``(vocabulary, hidden)``, that others may stand in for."""
    words = backbone.get_input_embeddings()
    coarse = isinstance(words, BottleneckEmbedding | CodedEmbedding)
    whole: Tensor = words.whole() if coarse else words.weight
    return whole
