"""All numbers of one encoder folder: scores, size, speed. Every model goes through this."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlkd.config import encoder_folder
from mlkd.errors import UserError
from mlkd.files import digest, encoder_fingerprint, file_sha256, write_json
from mlkd.integrity import sealed
from mlkd.metrics.scoring import score
from mlkd.metrics.sets import EvalSet, sentences
from mlkd.metrics.size import folder_mib, parameters
from mlkd.metrics.speed import race
from mlkd.runs.lock import Lock
from mlkd.schema import EncoderConfig, EvalConfig
from mlkd.targets.encoder import FrozenEncoder

log = logging.getLogger(__name__)

_FORMAT = 2
"""Version of cached scores; a change computes them anew."""
_TIMED = 192
"""Sentences that speed is measured with,"""
_BATCH = 32
"""and how many of them are encoded at once."""


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
    folder: Path,
    sets: list[EvalSet],
    config: EvalConfig,
    max_tokens: int,
    *,
    teacher: Path,
    accelerator: str,
) -> dict[str, Any]:
    """Score an encoder in fp32 and measure its size.

    Args:
        folder: The encoder.
        sets: Evaluation sets.
        config: Resamples of the intervals.
        max_tokens: Longer sentences are cut.
        teacher: For the agreement with its vectors.
        accelerator: Where the encoders run.
    """
    encoder, imitated = (
        FrozenEncoder.open(path, max_tokens=max_tokens, accelerator=accelerator)
        for path in (folder, teacher)
    )
    encode = partial(encoder.encode, description="evaluate")
    scores = score(encode, sets, bootstrap=config.bootstrap, teacher=imitated.encode)
    return {
        "scores": scores,
        "parameters": parameters(encoder.model),
        "mib": folder_mib(folder),
    }


def cached_measure(
    folder: Path,
    sets: list[EvalSet],
    config: EvalConfig,
    max_tokens: int,
    *,
    teacher: Path,
    accelerator: str,
    cache: Path,
    name: str,
) -> dict[str, Any]:
    """The same from the cache, where it is known; ``name`` is what the log calls the encoder."""
    gold = [None if s.scores is None else [float(x) for x in s.scores] for s in sets]
    texts = [[s.name, s.split, s.pair, s.left, s.right] for s in sets]
    encoders = [encoder_fingerprint(folder), encoder_fingerprint(teacher)]
    path = (
        cache / f"scores-{digest([_FORMAT, encoders, config.bootstrap, max_tokens, texts, gold])}"
    )

    def make(part: Path) -> None:
        log.info("evaluate %s", name)
        values = measure(folder, sets, config, max_tokens, teacher=teacher, accelerator=accelerator)
        write_json(part / "scores.json", values)

    with Lock(path.with_suffix(".lock"), waiting_for=f"scores of {name}"):
        written = sealed(path, make) / "scores.json"
    content: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return content


def measure_speed(
    folders: Mapping[str, Path], sets: list[EvalSet], max_tokens: int, accelerator: str
) -> dict[str, dict[str, Any]]:
    """Time encoders in turns on the same sentences of all languages, in fp32.

    Returns:
        By name ``sentences_per_s`` and ``latency_ms`` (see :func:`mlkd.metrics.speed.race`).
    """
    texts = sorted(sentences(sets))
    drawn = np.random.default_rng(0).permutation(len(texts))[:_TIMED]
    sample = [texts[i] for i in drawn]
    encoders = {
        name: FrozenEncoder.open(folder, max_tokens=max_tokens, accelerator=accelerator).encode
        for name, folder in folders.items()
    }
    return race(encoders, sample, batch_size=_BATCH, passes=3)
