"""Schemas of the other entry points; like :mod:`mlkd.schema`, free of torch."""

from __future__ import annotations

from typing import Annotated, Literal

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


ExportFormat = Literal["sentence_transformers", "dense"]


class ExportConfig(Section):
    """The whole of ``python -m mlkd.export``."""

    run: str
    """Folder of a finished run, or of a student."""
    format: list[ExportFormat] = Field(min_length=1)
    """What to write, each into a folder of its name."""
    output: str | None = None
    """Folder of the results; null = ``outputs/export/<name of the run>``."""
