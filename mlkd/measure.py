"""All numbers of one encoder folder: scores, size, speed. Every model goes through this."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlkd.config import encoder_folder
from mlkd.errors import UserError
from mlkd.files import file_sha256
from mlkd.metrics.scoring import score, share_of
from mlkd.metrics.sets import EvalSet
from mlkd.metrics.size import folder_mib, parameters
from mlkd.metrics.speed import latency
from mlkd.metrics.table import Row
from mlkd.schema import EncoderConfig, EvalConfig
from mlkd.targets.encoder import FrozenEncoder


def open_encoder_folder(config: EncoderConfig, allow_download: bool) -> Path:
    """Local folder of an encoder; a hub model comes from the local cache or is downloaded.

    Raises:
        UserError: It cannot be had, or its weights are not the expected ones.
    """
    folder = encoder_folder(config)
    if folder is None:
        from huggingface_hub import snapshot_download

        assert config.name is not None
        try:
            folder = Path(
                snapshot_download(
                    config.name,
                    revision=config.revision,
                    local_files_only=not allow_download,
                    ignore_patterns=["*.bin", "*.h5", "*.onnx", "*.msgpack", "*.pt", "*.py"],
                )
            )
        except Exception as error:  # the hub client raises its own, httpx's and OS errors
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"{config.name}@{config.revision} cannot be had ({reason[:120]}); give a local "
                "folder as path, or allow_download=true with a network"
            ) from None
    if config.sha256 is not None:
        found = file_sha256(folder / "model.safetensors")
        if found != config.sha256:
            raise UserError(
                f"{folder / 'model.safetensors'}: SHA-256 {found}, expected {config.sha256}"
            )
    return folder


def measure(
    folder: Path, sets: list[EvalSet], config: EvalConfig, max_tokens: int, *, teacher: Path | None
) -> dict[str, Any]:
    """Score an encoder in fp32 and measure its size and speed.

    Args:
        folder: The encoder.
        sets: Evaluation sets.
        config: Resamples of the intervals.
        max_tokens: Longer sentences are cut.
        teacher: For the agreement with its vectors.
    """
    encoder = FrozenEncoder.open(folder, max_tokens=max_tokens)
    imitated = FrozenEncoder.open(teacher, max_tokens=max_tokens).encode if teacher else None
    speed: dict[str, Any] = {}

    def encode(sentences: Sequence[str]) -> np.ndarray:
        start = time.perf_counter()
        vectors = encoder.encode(sentences, description="evaluate")
        speed["sentences_per_s"] = len(sentences) / (time.perf_counter() - start)
        speed["latency_ms"] = latency(encoder.encode, sentences)
        return vectors

    scores = score(encode, sets, bootstrap=config.bootstrap, teacher=imitated)
    return {
        "scores": scores,
        "parameters": parameters(encoder.model),
        "mib": folder_mib(folder),
        **speed,
    }


def table_row(name: str, measured: dict[str, Any], assistant: dict[str, Any] | None = None) -> Row:
    """A line of the result table."""
    share = share_of(assistant["scores"], measured["scores"])["share"] if assistant else None
    return Row(
        name=name,
        parameters=measured["parameters"]["total"],
        mib=measured["mib"],
        scores=measured["scores"],
        share=share,
        sentences_per_s=measured["sentences_per_s"],
        latency_ms=measured["latency_ms"]["p50"],
    )
