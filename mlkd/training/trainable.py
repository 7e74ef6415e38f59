"""A model is made ready for training, and is afterwards what it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from mlkd.encoders.backbone import backbone_of, set_dropout
from mlkd.machine.hardware import choose_kernels
from mlkd.student.table import WholeTable


@contextmanager
def trainable(
    model: SentenceTransformer,
    occurs: Tensor,
    *,
    dropout: float,
    precision: str,
    device: torch.device,
) -> Iterator[WholeTable | None]:
    """Take the rows of the word table that occur out of it, and choose dropout and kernels.

    Afterwards, after an error too, the table is whole again, and dropout, kernels, mode and
    ``requires_grad`` are those of before. Weights are as the training left them.

    Args:
        model: The encoder, changed in place.
        occurs: Which pieces occur in the text ``(vocabulary,)``, bool.
        dropout: Of all layers.
        precision: ``fp32`` or ``bf16``.
        device: Where it will be trained.
    """
    backbone = backbone_of(model)
    kernel, mode = backbone.config._attn_implementation, model.training
    classes = [(module, type(module)) for module in model.modules()]
    rates = [(module, module.p) for module in model.modules() if isinstance(module, nn.Dropout)]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    choose_kernels(backbone, precision, device)
    set_dropout(model, dropout)
    words = WholeTable.take_out(backbone, occurs)
    try:
        yield words
    finally:
        model.cpu()
        if words is not None:
            words.put_back()
        for module, kind in classes:
            module.__class__ = kind
        for module, rate in rates:
            module.p = rate
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        backbone.set_attn_implementation(kernel)
        model.train(mode)
