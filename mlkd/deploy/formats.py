"""The formats: how each is written, opened again, and how far its vectors may be off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from mlkd.commands import ExportFormat
from mlkd.deploy.dense import write_dense
from mlkd.student.folder import load_folder, save_folder

Encode = Callable[[Sequence[str]], np.ndarray]
"""N sentences to (N, d) vectors."""

BATCH = 32


@dataclass(frozen=True)
class Format:
    """One format of an encoder.

    Attributes:
        write: Writes an encoder into an empty folder.
        open: Opens the folder again, as its users do.
        tolerance: Largest legal difference of a coordinate of two unit vectors.
    """

    write: Callable[[SentenceTransformer, Path], None]
    open: Callable[[Path], Encode]
    tolerance: float


def encoder(model: SentenceTransformer) -> Encode:
    """``encode`` of a sentence-transformers model, in batches of :data:`BATCH`."""

    def encode(sentences: Sequence[str]) -> np.ndarray:
        vectors: np.ndarray = model.encode(
            list(sentences), batch_size=BATCH, show_progress_bar=False
        )
        return vectors

    return encode


def _open_compact(folder: Path) -> Encode:
    return encoder(load_folder(folder))


def _open_dense(folder: Path) -> Encode:
    return encoder(SentenceTransformer(str(folder), device="cpu", local_files_only=True))


FORMATS: dict[ExportFormat, Format] = {
    "sentence_transformers": Format(save_folder, _open_compact, 0.0),
    "dense": Format(write_dense, _open_dense, 1e-5),
}
