"""Small students and their exports, for tests of several rooms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from conftest import ENGLISH, GERMAN, stored_tokens
from sentence_transformers import SentenceTransformer

from mlkd.config.commands import ExportConfig
from mlkd.config.schema import InitConfig, StudentConfig
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder
from mlkd.student.initialise import build_student
from mlkd.student.narrow import narrowed

TEXTS = [*ENGLISH, *GERMAN]


def small(folder: Path, bottleneck: int | None, **size: int) -> SentenceTransformer:
    """A student of an encoder folder, built and not trained."""
    source = load_folder(folder)
    embedding: Any = "svd" if bottleneck else "copy"
    init = InitConfig(source="teacher", layers="ends", embedding=embedding)
    frequency = torch.ones(backbone_of(source).config.vocab_size)
    student = StudentConfig(bottleneck=bottleneck, **size)
    if student.intermediate is not None:
        source = narrowed(source, stored_tokens(source, TEXTS), student.intermediate)
    return build_student(source, student, init, frequency, 16)


def export(run: Path, output: Path, *formats: str, **more: Any) -> Path:
    """What ``python -m mlkd.export`` writes."""
    from mlkd.export import main

    values = {"run": str(run), "format": list(formats), "output": str(output), **more}
    main(ExportConfig.model_validate(values))
    return output
