"""The formats: how each is written, opened again, and how far its vectors may be off."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from mlkd.config.commands import ExportFormat
from mlkd.deploy.dense import write_dense
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.metrics.scoring import Encode

BATCH = 32


@dataclass(frozen=True)
class Format:
    """One format of an encoder.

    Attributes:
        write: Writes an encoder into an empty folder.
        open: Opens the folder again, as its users do.
        tolerance: Largest legal difference of a coordinate of two unit vectors, 0 = bit-equal;
            None for a format that is judged by its scores.
    """

    write: Callable[[SentenceTransformer, Path], None]
    open: Callable[[Path], Encode]
    tolerance: float | None


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


def _write_onnx(model: SentenceTransformer, folder: Path, *, int8: bool) -> None:
    from mlkd.deploy.onnx_encoder import write_onnx  # needs the extra ``export``

    write_onnx(model, folder, int8=int8)


def open_onnx(folder: Path, threads: int = 0) -> Encode:
    """``encode`` of the folder's own ``encode.py``."""
    spec = importlib.util.spec_from_file_location("mlkd_exported_encode", folder / "encode.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    encode: Encode = module.Encoder(folder, threads).encode
    return encode


FORMATS: dict[ExportFormat, Format] = {
    "sentence_transformers": Format(save_folder, _open_compact, 0.0),
    "dense": Format(write_dense, _open_dense, 1e-5),
    "onnx": Format(partial(_write_onnx, int8=False), open_onnx, 1e-4),
    "onnx_int8": Format(partial(_write_onnx, int8=True), open_onnx, None),
}
