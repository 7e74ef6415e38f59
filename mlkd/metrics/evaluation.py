"""All numbers of one encoder folder: scores, size, speed. Every model goes through this."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlkd.config.backbone import encoder_folder
from mlkd.config.inputs import EncoderConfig
from mlkd.config.versions import code_versions
from mlkd.encoders.folder import with_prompt
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.encoders.head import Head, load_head
from mlkd.machine.hardware import describe_hardware, device_of, resolve_precision
from mlkd.metrics.scoring import Encode, Scores, can_score, score
from mlkd.metrics.sets import EvalSet, set_sentences
from mlkd.metrics.size import folder_mib, parameters
from mlkd.metrics.speed import race
from mlkd.output.errors import UserError
from mlkd.runs.record import now
from mlkd.storage.files import (
    digest,
    encoder_fingerprint,
    known_sha256,
    prompts_of,
    reason_of,
    write_json,
)
from mlkd.storage.lock import Lock
from mlkd.storage.seals import sealed

log = logging.getLogger(__name__)

_FORMAT = 4
"""Version of cached scores; a change computes them anew."""
_TIMED = 96
"""Sentences that speed is measured with,"""
_BATCH = 32
"""and how many of them are encoded at once."""


def open_encoder_folder(config: EncoderConfig, allow_download: bool, cache: Path) -> Path:
    """Local folder of an encoder; a hub model comes from the local cache or is downloaded.

    Args:
        config: Where it is, and its prompt, which is the default one of the folder.
        allow_download: Whether it may be downloaded.
        cache: Folder of all caches; gets a folder of links where there is another prompt.

    Raises:
        UserError: It cannot be had, its weights are not the expected ones, or it has no prompt of
            that name.
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
            raise UserError(
                f"{config.name}@{config.revision} cannot be had ({reason_of(error)}); give a local "
                "folder as path, or allow_download=true with a network"
            ) from None
    if config.sha256 is not None:
        found = known_sha256(folder / "model.safetensors")
        if found != config.sha256:
            raise UserError(
                f"{folder / 'model.safetensors'}: SHA-256 {found}, expected {config.sha256}"
            )
    prompt = config.prompt
    if config.prompt_name is not None:
        prompts, _ = prompts_of(folder)
        prompt = prompts.get(config.prompt_name)
        if prompt is None:
            allowed = ", ".join(sorted(prompts)) or "it has none; give the prompt itself"
            raise UserError(
                f"prompt_name={config.prompt_name}: {folder} has no such prompt; allowed: {allowed}"
            )
    return folder if prompt is None else with_prompt(folder, prompt, cache)


@dataclass(frozen=True)
class Evaluation:
    """What encoders are judged on; one for all whose numbers stand beside each other."""

    sets: Sequence[EvalSet]
    bootstrap: int
    """Resamples of the STS intervals; 0 = none."""
    max_tokens: int
    """Longer sentences are cut."""
    teacher: Path
    """For the agreement with its vectors."""
    accelerator: str
    """Where the encoders run."""
    precision: str = "fp32"
    """What they are scored in: ``fp32``, ``bf16`` or ``auto``."""

    def measure(
        self, folder: Path, head: Path | None = None, encode: Encode | None = None
    ) -> dict[str, Any]:
        """Score an encoder, with a head for classifications if it has one, and measure its size.

        Args:
            folder: The encoder.
            head: Folder of the head.
            encode: What gives its vectors; None = the encoder, opened here.

        Returns:
            ``scores`` (see :func:`mlkd.metrics.scoring.score`), their ``precision``,
            ``parameters`` and ``mib``.
        """
        encoder = self.open(folder)
        return {
            "scores": self.scores(
                encode or partial(encoder.encode, description="evaluate"),
                None if head is None else load_head(head, encoder.dimension),
            ),
            "precision": encoder.precision,
            "parameters": parameters(encoder.model),
            "mib": folder_mib(folder),
        }

    def scores(self, encode: Encode, head: Head | None = None) -> Scores:
        """Score any encoder (see :func:`mlkd.metrics.scoring.score`)."""
        return score(encode, self.sets, bootstrap=self.bootstrap, teacher=self._teach, head=head)

    def cached(
        self, folder: Path, cache: Path, name: str, head: Path | None = None
    ) -> dict[str, Any]:
        """The same from the cache, where it is known; the log calls the encoder ``name``."""

        def make() -> dict[str, Any]:
            log.info("evaluate %s", name)
            return self.measure(folder, head)

        return _kept(cache, "scores", self._key(folder, head), make, f"scores of {name}")

    def cached_graph(
        self, graph: Path, cache: Path, name: str, make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """What ``make`` measures of an exported encoder, from the cache where it is known.

        Args:
            graph: Its weights, in ``onnx/`` of its folder.
            cache: Folder of all caches.
            name: What the log calls it.
            make: Gives what :meth:`measure` does.
        """
        key = digest([self._key(graph.parents[1], None), known_sha256(graph)])
        return _kept(cache, "scores", key, make, f"scores of {name}")

    def encoder(self, folder: Path) -> Encode:
        """``encode`` of a folder in fp32, as fast as it is for whoever loads it."""
        return self._open(folder, "fp32", as_it_comes=True).loaded().encode

    def speed(self, encoders: Mapping[str, Encode]) -> dict[str, dict[str, Any]]:
        """Time encoders in turns on the same sentences of all languages.

        Returns:
            By name ``sentences_per_s`` and ``latency_ms`` (see :func:`mlkd.metrics.speed.race`).
        """
        return race(encoders, self._timed(), batch_size=_BATCH, passes=3)

    def cached_speed(self, folders: Mapping[str, Path], cache: Path) -> dict[str, dict[str, Any]]:
        """``speed`` of folders in fp32, from the cache if they have raced on such hardware.

        One key for all of them, since only times of one race compare.
        """
        hardware = describe_hardware(device_of(self.accelerator))
        encoders = {name: encoder_fingerprint(folder) for name, folder in folders.items()}
        how = [self.max_tokens, _BATCH, hardware, torch.__version__, code_versions()]
        key = digest([encoders, self._timed(), *how])

        def make() -> dict[str, Any]:
            raced = self.speed({name: self.encoder(folder) for name, folder in folders.items()})
            return {"finished": now(), "models": raced}

        known = _kept(cache, "speed", key, make, "a race of encoders")
        log.info(
            "speed: as of %s on %s, in %s", known["finished"], hardware, cache / f"speed-{key}"
        )
        models: dict[str, dict[str, Any]] = known["models"]
        return models

    def _timed(self) -> list[str]:
        """Sentences that speed is measured with."""
        texts = sorted(set_sentences(self.sets))
        drawn = np.random.default_rng(0).permutation(len(texts))[:_TIMED]
        return [texts[i] for i in drawn]

    @cached_property
    def _teach(self) -> Encode:
        """The teacher's vectors, which are asked for anew, and are the same, with each encoder."""

        @lru_cache(maxsize=1)  # of all its sentences; the model is not kept
        def remembered(texts: tuple[str, ...]) -> np.ndarray:
            return self.open(self.teacher).encode(texts)

        return lambda texts: remembered(tuple(texts))

    def open(self, folder: Path) -> FrozenEncoder:
        """The encoder of a folder as it is scored."""
        return self._open(folder, self.precision)

    def _open(self, folder: Path, precision: str, as_it_comes: bool = False) -> FrozenEncoder:
        return FrozenEncoder.open(
            folder,
            max_tokens=self.max_tokens,
            accelerator=self.accelerator,
            precision=precision,
            as_it_comes=as_it_comes,
        )

    def _key(self, folder: Path, head: Path | None) -> str:
        """Hash of everything that decides an encoder's scores."""
        read = [s for s in self.sets if head is not None or can_score(s, None)]
        sets = [[s.name, s.split, s.pair, s.content] for s in read]
        encoders = [encoder_fingerprint(folder), encoder_fingerprint(self.teacher)]
        how: list[int | str] = [self.bootstrap, self.max_tokens]
        precision = resolve_precision(self.precision, device_of(self.accelerator))
        if precision != "fp32":
            how.append(precision)
        if head is not None:
            how.append(encoder_fingerprint(head))
        return digest([_FORMAT, encoders, *how, sets])


def _kept(
    cache: Path, kind: str, key: str, make: Callable[[], dict[str, Any]], what: str
) -> dict[str, Any]:
    """A JSON object from ``<cache>/<kind>-<key>``, made if it is not there; ``what`` names it."""
    path = cache / f"{kind}-{key}"

    def write(part: Path) -> None:
        write_json(part / f"{kind}.json", make())

    with Lock(path.with_suffix(".lock"), waiting_for=what):
        written = sealed(path, write) / f"{kind}.json"
    content: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return content
