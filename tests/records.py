"""Run records for tests of what reads them: real chains of tiny models."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from conftest import LINKS, configure, tiny_settings

from mlkd.config.schema import TrainConfig
from mlkd.recipes.run import run_chain

CELLS = [(e, r, seed) for e in (4, 8) for r in (1, 2) for seed in (0,)] + [(4, 2, 1)]
"""Bottleneck, recurrence and seed of the chains that are trained."""


def make_records(encoder: Path, corpus: Path, output: Path) -> Path:
    """Run a small sweep, and leave a failed and a missing cell in its record.

    Returns:
        The multirun folder; the runs are in ``output``.
    """
    settings = [*tiny_settings(encoder, corpus, output, 4), "trainer.validations=2"]
    entries: list[dict[str, Any]] = []
    sweep = output / "multirun" / "bottleneck_recurrence"
    for e, r, seed in CELLS:
        chosen = {"student.bottleneck": e, "student.recurrence": r, "seed": seed}
        config = configure(*settings, *(f"{k}={v}" for k, v in chosen.items()))
        before = _finished(output)
        run_chain(config)
        made = sorted(_finished(output) - before, key=lambda p: LINKS.index(_stage(p)))
        entries.append(_entry(f"cell{len(entries)}", chosen, [p.name for p in made], config, sweep))
    last = made[-1]
    failed = last.with_name("contrastive-00000000failed00")
    failed.mkdir()
    record = json.loads((last / "run.json").read_text())
    kept = {
        k: v for k, v in record.items() if k in {"link", "stage", "identity", "config", "started"}
    }
    kept["config"]["student"]["recurrence"] = 3
    broken = {"id": failed.name, "status": "failed", "reason": "OutOfMemoryError('no memory left')"}
    (failed / "run.json").write_text(json.dumps(kept | broken))
    for number, status in ((3, "failed"), (4, "missing")):
        chosen = {"student.bottleneck": 4, "student.recurrence": number, "seed": 0}
        config = configure(*settings, *(f"{k}={v}" for k, v in chosen.items()))
        runs = [failed.name] if status == "failed" else []
        entry = _entry(f"cell{len(entries)}", chosen, runs, config, sweep)
        error = "OutOfMemoryError: no memory left" if status == "failed" else None
        entries.append(entry | {"status": status, "error": error})
    (sweep / "sweep.json").write_text(json.dumps({"shared": [], "cells": entries}))
    return sweep


def _finished(output: Path) -> set[Path]:
    return {path.parent for path in (output / "runs").glob("*/run.json")}


def _stage(run: Path) -> str:
    return run.name.split("-")[0]


def _entry(
    name: str, chosen: dict[str, Any], runs: list[str], config: TrainConfig, sweep: Path
) -> dict[str, Any]:
    job = sweep / "jobs" / f"{name}.json"
    job.parent.mkdir(parents=True, exist_ok=True)
    job.write_text(json.dumps({"config": config.model_dump(mode="json"), "shared": False}))
    return {
        "id": name,
        "overrides": {key: str(value) for key, value in chosen.items()},
        "runs": runs,
        "status": "finished",
        "error": None,
        "log": os.fspath(sweep / "logs" / f"{name}.log"),
    }
