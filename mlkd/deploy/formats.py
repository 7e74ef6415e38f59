"""The formats: how each is written, opened again, and how far its vectors may be off."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from mlkd.config.commands import ExportFormat
from mlkd.config.formats import Q4Config
from mlkd.deploy.dense import write_dense, write_description
from mlkd.deploy.exported import FP32, INT8, Q4, open_onnx
from mlkd.deploy.quantise import Weights
from mlkd.encoders.difference import FILE as DIFFERENCE
from mlkd.encoders.difference import Differences
from mlkd.encoders.folder import load_folder, quiet, save_folder
from mlkd.metrics.scoring import Encode

BATCH = 32


@dataclass(frozen=True)
class Part:
    """Weights in a folder, judged by themselves.

    Attributes:
        file: Where they are in the folder.
        open: Opens the folder with them, as its users do.
        tolerance: Largest legal difference of a coordinate of two unit vectors, 0 = bit-equal;
            None for weights that are judged by their scores.
        scored: Whether the card shows scores: not those of weights whose numbers another file of
            the folder has, and that take longer.
        native: Whether ``open`` runs them as their users do, so that its times are theirs.
        expected: Whose vectors they are to have; None = the student's.
    """

    file: str
    open: Callable[[Path], Encode]
    tolerance: float | None
    scored: bool = True
    native: bool = True
    expected: Encode | None = None


@dataclass(frozen=True)
class Sides:
    """Two encoders in a folder.

    Attributes:
        name: Whose documents they are: ``assistant``, ``teacher`` or ``other encoder``.
        queries: Opens the one of queries.
        documents: Opens the one of documents.
        only_source: Whether it reads no other language than the source of pairs.
        longest: It cuts longer documents (tokens).
        prompt: What it reads before each document.
    """

    name: str
    queries: Callable[[Path], Encode]
    documents: Callable[[Path], Encode]
    only_source: bool
    longest: int
    prompt: str


@dataclass(frozen=True)
class Format:
    """One format of an encoder.

    Attributes:
        write: Writes an encoder into an empty folder; that of ``onnx_q4`` takes its settings, too.
        parts: Its weights; a folder without the first is none.
        sides: Of a folder with one encoder for queries and one for documents.
        notes: What its ``export.json`` says besides what is measured.
    """

    write: Callable[..., None]
    parts: tuple[Part, ...]
    sides: Sides | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


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
    with quiet():
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return encoder(model)


def _onnx(file: str, tolerance: float | None) -> Part:
    return Part(file, partial(open_onnx, file=file), tolerance)


KINDS: dict[str, Weights] = {FP32: "fp32", INT8: "int8", Q4: "q4"}
"""How a graph stores its weights, by its file."""


def write_graphs(
    model: SentenceTransformer, folder: Path, *files: str, q4: Q4Config | None = None
) -> None:
    """The graphs and what runs them."""
    from mlkd.deploy.onnx_encoder import write_onnx  # needs the extra ``export``

    (folder / "onnx").mkdir()
    for file in files:
        write_onnx(model, folder / file, KINDS[file], q4)
    shutil.copyfile(Path(__file__).with_name("encode.py"), folder / "encode.py")


def _write_portable(model: SentenceTransformer, folder: Path) -> None:
    write_dense(model, folder)
    write_graphs(model, folder, FP32, INT8)


def _write_int8(model: SentenceTransformer, folder: Path) -> None:
    write_description(model, folder)
    write_graphs(model, folder, INT8)


def _write_q4(model: SentenceTransformer, folder: Path, q4: Q4Config | None = None) -> None:
    write_description(model, folder)
    write_graphs(model, folder, Q4, q4=q4)


GGUF = {"f32": "model-f32.gguf", "q8_0": "model-q8_0.gguf"}
"""Files for llama.cpp by the type of their matrices."""


def _write_gguf(model: SentenceTransformer, folder: Path) -> None:
    from mlkd.deploy.gguf_file import write_gguf  # needs the extra ``export``

    write_description(model, folder)
    for kind, file in GGUF.items():
        write_gguf(model, folder / file, q8=kind == "q8_0")


def _open_gguf(folder: Path, *, file: str) -> Encode:
    from mlkd.deploy.gguf_file import open_gguf

    return encoder(open_gguf(folder, folder / file))


def _gguf(kind: str, tolerance: float) -> Part:
    open_file = partial(_open_gguf, file=GGUF[kind])
    return Part(GGUF[kind], open_file, tolerance, scored=False, native=False)


def sparse_format(base: Path, run: Path) -> Format:
    """The sparse difference of a run, which its users apply to the base that they have.

    Args:
        base: The encoder that it is applied to.
        run: Folder of the run; the head of a classification, if it has one, goes along.
    """

    def open_sparse(folder: Path) -> Encode:
        model = load_folder(base)
        Differences(model).apply(folder)
        return encoder(model)

    def write(model: SentenceTransformer, folder: Path) -> None:
        shutil.copyfile(run / "diff" / DIFFERENCE, folder / DIFFERENCE)
        if (run / "head").is_dir():
            shutil.copytree(run / "head", folder, dirs_exist_ok=True)

    return Format(write, (Part(DIFFERENCE, open_sparse, 0.0),))


FORMATS: dict[ExportFormat, Format] = {
    "portable": Format(
        _write_portable,
        (
            Part("model.safetensors", _open_dense, 1e-5, scored=False),
            _onnx(FP32, 1e-4),
            _onnx(INT8, None),
        ),
    ),
    "onnx_int8": Format(_write_int8, (_onnx(INT8, None),)),
    "onnx_q4": Format(_write_q4, (_onnx(Q4, None),)),
    "gguf": Format(_write_gguf, (_gguf("f32", 1e-5), _gguf("q8_0", 0.05))),
    "compact": Format(save_folder, (Part("model.safetensors", _open_compact, 0.0),)),
}
"""Those that need no more than the encoder."""
