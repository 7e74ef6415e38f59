"""A static encoder made from another one: a vector a piece, and the mean of them."""

from __future__ import annotations

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
from torch import Tensor

from mlkd.progress import progress
from mlkd.student.backbone import backbone_of

_PIECES_PER_BATCH = 512
_SIF = 1e-4
"""The constant a of the weights a / (a + p) (Arora et al., 2017; model2vec's default)."""


@torch.inference_mode()
def static_encoder(
    source: SentenceTransformer, frequency: Tensor, width: int
) -> SentenceTransformer:
    """Distil an encoder into a table of vectors without any training, as model2vec does.

    Each piece of the vocabulary is encoded by the source as a sentence of its own; principal
    components take the vectors to ``width``, and frequent pieces count less (smooth inverse
    frequency). model2vec itself does not install beside the transformers that mlkd needs.

    Args:
        source: The encoder; its tokenizer is the result's too.
        frequency: Count of each piece in the training text ``(vocabulary,)``.
        width: Width of the vectors, at most that of the source's.

    Returns:
        A sentence-transformers model of unit vectors ``(width,)``.
    """
    tokenizer, config = source.tokenizer, backbone_of(source).config
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
    vectors = vectors - vectors.mean(dim=0)
    directions = torch.linalg.eigh(vectors.T @ vectors).eigenvectors.flip(1)[:, :width]
    share = (frequency.float() / frequency.sum())[:, None]
    table = vectors @ directions * (_SIF / (_SIF + share))
    table[torch.tensor(tokenizer.all_special_ids)] = 0.0
    embedding = StaticEmbedding(tokenizer.backend_tokenizer, embedding_weights=table)
    return SentenceTransformer(modules=[embedding, Normalize()], device="cpu")
