"""A static encoder made from another one: a vector a piece, and the mean of them."""

from __future__ import annotations

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from torch import Tensor

from mlkd.encoders.backbone import backbone_of
from mlkd.output.progress import progress

_PIECES_PER_BATCH = 512
_SIF = 1e-4
"""The constant a of the weights a / (a + p) (Arora et al., 2017; model2vec's default)."""


@torch.inference_mode()
def static_encoder(
    source: SentenceTransformer, frequency: Tensor, width: int
) -> SentenceTransformer:
    """Distil an encoder into a table of vectors without any training, in model2vec's way.

    Each piece of the vocabulary is encoded by the source as a sentence of its own; principal
    components take the vectors to ``width``, and frequent pieces count less (smooth inverse
    frequency, here of counted pieces). model2vec itself does not install beside the transformers
    that mlkd needs.

    Args:
        source: The encoder; its tokenizer is the result's too.
        frequency: Count of each piece in some text ``(vocabulary,)``; special ones do not count.
        width: Width of the vectors, at most that of the source's.

    Returns:
        A sentence-transformers model of unit vectors ``(width,)`` without a longest input.

    Raises:
        ValueError: The vectors would be wider than the source's.
    """
    available = int(source.get_embedding_dimension() or 0)
    if width > available:
        raise ValueError(f"width={width}: the source's vectors have {available}")
    tokenizer, config = source.tokenizer, backbone_of(source).config
    special = torch.zeros(config.vocab_size, dtype=torch.bool)
    special[tokenizer.all_special_ids] = True
    pieces = torch.arange(config.vocab_size)
    first, last = torch.tensor(tokenizer.cls_token_id), torch.tensor(tokenizer.sep_token_id)
    rows = []
    bar = progress("static vectors", total=len(pieces), unit=" pieces")
    for batch in pieces.split(_PIECES_PER_BATCH):
        ids = torch.stack([first.expand(len(batch)), batch, last.expand(len(batch))], dim=1)
        features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        rows.append(source(features)["sentence_embedding"])
        bar.update(len(batch))
    bar.close()
    vectors = torch.cat(rows)
    vectors = vectors - vectors[~special].mean(dim=0)
    vectors[special] = 0.0
    directions = torch.linalg.eigh(vectors.T @ vectors).eigenvectors.flip(1)[:, :width]
    counts = torch.where(special, 0, frequency).float()
    table = vectors @ directions * (_SIF / (_SIF + counts / counts.sum()))[:, None]
    embedding = StaticEmbedding(tokenizer.backend_tokenizer, embedding_weights=table)
    return SentenceTransformer(modules=[embedding, Normalize()], device="cpu")
