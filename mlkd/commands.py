"""Schemas of the other entry points; like :mod:`mlkd.schema`, free of torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mlkd.schema import EncoderConfig, EvalConfig, Section


class EvaluateConfig(Section):
    """The whole of ``python -m mlkd.evaluate``."""

    model: str
    """Student folder, run folder, or hub name with ``@revision``."""
    teacher: EncoderConfig
    eval: EvalConfig
    max_tokens: Annotated[int, Field(ge=4, le=512)] = 64
    """Longer sentences are cut."""
    output: str | None = None
    """JSON file to write; null = ``outputs/evaluation.json``."""
    allow_download: bool = False
