"""Write every format, compare it with the student, and only then put it in place."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mlkd.config.commands import ExportConfig, ExportFormat
from mlkd.config.inputs import EvalConfig, EvalSetConfig
from mlkd.deploy.card import model_card
from mlkd.deploy.formats import FORMATS, encoder
from mlkd.deploy.push import push
from mlkd.deploy.source import Source
from mlkd.deploy.trimming import trim_vocabulary
from mlkd.encoders.folder import load_folder
from mlkd.metrics.scoring import Encode, score, select_value
from mlkd.metrics.sets import load_sets, sentences
from mlkd.metrics.similarity import unit
from mlkd.metrics.size import folder_mib
from mlkd.output.errors import UserError
from mlkd.storage.files import write_json

log = logging.getLogger(__name__)

_COMPARED = 512
"""Sentences whose vectors are compared; a wrong weight shows in the first."""


def export(config: ExportConfig, source: Source, target: Path) -> None:
    """Write all formats; if one of them fails its check, none is left behind.

    Raises:
        UserError: A format's vectors, or its scores, differ from the student's by more than they
            may.
    """
    model = load_folder(source.folder)
    settings = eval_settings(config, source)
    common: dict[str, Any] = {"source": source.name}
    if config.trim is not None:
        model, common["trim"] = trim_vocabulary(config, source, settings, model)
    texts = some_sentences()
    expected = encoder(model)(texts)
    reports: dict[str, dict[str, Any]] = {}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export.", dir=target.parent) as temporary:
        part = Path(temporary)
        for name in config.format:
            log.info("%s: write and compare %d sentences", name, len(texts))
            FORMATS[name].write(model, part / name)
            encode = FORMATS[name].open(part / name)
            shutil.rmtree(part / name / "__pycache__", ignore_errors=True)  # of encode.py
            report = compare(name, encode(texts), expected)
            if FORMATS[name].tolerance is None:
                report["dev"] = dev_scores(settings, encoder(model), encode)
                check_loss(name, report["dev"], config.max_loss)
            reports[name] = report | {"mib": folder_mib(part / name)}
        for name in config.format:
            write_json(part / name / "export.json", common | reports[name])
            card = model_card(config, source, name, reports, common.get("trim"))
            (part / name / "README.md").write_text(card, encoding="utf-8")
        target.mkdir(exist_ok=True)
        for name in config.format:
            (part / name).rename(target / name)
    Console(width=120).print(_table(reports))
    if config.push is not None:
        log.info("pushed: %s", push(target / config.format[0], config.push))


def some_sentences() -> list[str]:
    """Sentences of five languages and all lengths, the same for every export."""
    demo = EvalSetConfig(
        kind="bitext", split="test", format="demo", languages=["de", "fr", "es", "tr"]
    )
    found = sorted(sentences(load_sets(EvalConfig(sets={"demo": demo}))))
    spread = np.linspace(0, len(found) - 1, min(_COMPARED, len(found))).astype(int)
    # A sentence that is cut, one of a single letter, and letters that no vocabulary knows.
    return [found[i] for i in spread] + [" ".join(found[:60]), "a", "ꙮ ᚠᚢᚦ 漢字"]


def compare(name: ExportFormat, found: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """Compare the vectors of a format with the student's.

    Returns:
        ``max_difference`` of a coordinate and ``cosine`` (``mean``, ``min``) of unit vectors.

    Raises:
        UserError: The difference is larger than the format allows.
    """
    allowed = FORMATS[name].tolerance
    difference = float(np.abs(unit(found) - unit(expected)).max())
    equal = np.array_equal(found, expected) if allowed == 0 else True
    if not (equal and np.isfinite(found).all() and (allowed is None or difference <= allowed)):
        raise UserError(
            f"{name}: its vectors differ from the student's by up to {difference:.2g}; "
            f"allowed: {allowed or 0:g}; nothing was written"
        )
    cosine = (unit(found) * unit(expected)).sum(1)
    return {
        "max_difference": difference,
        "cosine": {"mean": float(cosine.mean()), "min": float(cosine.min())},
    }


def eval_settings(config: ExportConfig, source: Source) -> EvalConfig:
    """The evaluation sets: those asked for, those of the run, or the demo's."""
    languages = ["en", "de", "fr", "es", "tr"]
    demo = EvalSetConfig(kind="sts", split="dev", format="demo", languages=languages)
    chosen = config.eval or source.section("eval", EvalConfig)
    return chosen or EvalConfig(sets={"sts_dev": demo})


def dev_scores(settings: EvalConfig, before: Encode, after: Encode) -> dict[str, float]:
    """The selecting dev score of the student and of a format: ``student`` and ``export``."""
    sets = [item for item in load_sets(settings) if item.split == "dev"]
    return {
        name: select_value(score(encode, sets, bootstrap=0))
        for name, encode in (("student", before), ("export", after))
    }


def check_loss(name: ExportFormat, dev: dict[str, float], allowed: float) -> None:
    """Refuse a format that scores too low.

    Raises:
        UserError: It loses more dev points than allowed.
    """
    loss = dev["student"] - dev["export"]
    if loss > allowed:
        raise UserError(
            f"{name}: it loses {loss:.2f} points on dev ({dev['student']:.2f} to "
            f"{dev['export']:.2f}); max_loss={allowed:g}; nothing was written"
        )


def _table(reports: dict[str, dict[str, Any]]) -> Table:
    table = Table("format", "MiB", "max difference", "mean cosine", "min cosine", "dev change")
    for name, report in reports.items():
        dev = report.get("dev")
        cosine = report["cosine"]
        table.add_row(
            name,
            f"{report['mib']:.2f}",
            f"{report['max_difference']:.1e}",
            f"{cosine['mean']:.5f}",
            f"{cosine['min']:.5f}",
            f"{dev['export'] - dev['student']:+.2f}" if dev else "-",
        )
    return table
