"""Small students and their exports, for tests of several rooms."""

from __future__ import annotations

import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from conftest import ENGLISH, GERMAN, stored_tokens
from sentence_transformers import SentenceTransformer

from mlkd.config.commands import ExportConfig
from mlkd.config.evaluation import EvalConfig, EvalSetConfig
from mlkd.config.student import InitConfig, StudentConfig
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder
from mlkd.metrics.similarity import cosines
from mlkd.storage.files import encoder_fingerprint
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


def export(run: Path, output: Path, *formats: str, refuses: int = 0, **more: Any) -> Path:
    """What ``python -m mlkd.export`` writes; ``refuses`` is its exit status."""
    from mlkd.export import main

    values = {"run": str(run), "format": list(formats), "output": str(output), **more}
    status = 0
    try:
        main(ExportConfig.model_validate(values))
    except SystemExit as end:
        status = int(end.code or 0)
    assert status == refuses
    return output


def as_run(encoder: Path, folder: Path, **changes: Any) -> Path:
    """A run folder whose student is a copy of an encoder."""
    shutil.copytree(encoder, folder / "student")
    record = {
        "id": "contrastive-0",
        "link": "contrastive",
        "status": "finished",
        "finished": "2026-01-01T00:00:00+00:00",
        "outputs": {"student": {"content": encoder_fingerprint(encoder), "files": {}}},
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def own_ranking(student: Path, folder: Path) -> EvalConfig:
    """A dev set on which the student is always right."""
    left, right = zip(*combinations(TEXTS, 2), strict=True)
    model = load_folder(student)
    gold = cosines(model.encode(left), model.encode(right)) * 2 + 2
    lines = [f"{a}\t{b}\t{score}\n" for a, b, score in zip(left, right, gold, strict=True)]
    (folder / "dev-en-de.tsv").write_text("".join(lines), encoding="utf-8")
    path, pairs = "dev-{a}-{b}.tsv", ["en-de"]
    sts = EvalSetConfig(kind="sts", split="dev", path=path, languages=["en", "de"], pairs=pairs)
    return EvalConfig(root=str(folder), sets={"own": sts})
