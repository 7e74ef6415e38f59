"""Size of an encoder: stored parameters and bytes on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from mlkd.output.errors import UserError

_BLOCKS = {
    "embeddings": "embedding",
    "embedding": "embedding",
    "encoder": "encoder",
    "transformer": "encoder",
}
"""Block by the first module of that name on the way to a parameter."""


def parameters(model: nn.Module) -> dict[str, int]:
    """Stored parameters of an encoder; one that several modules share counts once, a code as one.

    Args:
        model: A Hugging Face encoder or a sentence-transformers model.

    Returns:
        Counts of ``embedding`` (words, positions, types, their LayerNorm and, with a bottleneck,
        the projection), ``encoder`` (layers), ``other`` (pooler, dense heads) and ``total``.
    """
    counts = {"embedding": 0, "encoder": 0, "other": 0}
    codes = ((n, b) for n, b in model.named_buffers() if b.dtype == torch.uint8)
    for name, stored in (*model.named_parameters(), *codes):
        block = next((_BLOCKS[part] for part in name.split(".") if part in _BLOCKS), "other")
        counts[block] += stored.numel()
    return {**counts, "total": sum(counts.values())}


def folder_mib(path: Path | str) -> float:
    """Size of all files of a folder in MiB (2**20 bytes).

    Raises:
        UserError: The folder does not exist.
    """
    return sum(file.stat().st_size for file in _files(path)) / 2**20


def _files(path: Path | str) -> list[Path]:
    if not Path(path).is_dir():
        raise UserError(f"{path}: no such folder; give the folder of an encoder")
    return [file for file in Path(path).rglob("*") if file.is_file()]
