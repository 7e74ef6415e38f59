"""Write every format, compare it with the student, and only then put it in place."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mlkd.commands import ExportConfig, ExportFormat
from mlkd.deploy.formats import FORMATS, Encode, encoder
from mlkd.deploy.source import Source
from mlkd.errors import UserError
from mlkd.files import replacing_folder, write_json
from mlkd.metrics.sets import load_sets, sentences
from mlkd.metrics.similarity import unit
from mlkd.metrics.size import folder_mib
from mlkd.schema import EvalConfig, EvalSetConfig
from mlkd.student.folder import load_folder

log = logging.getLogger(__name__)

_COMPARED = 512
"""Sentences whose vectors are compared; a wrong weight shows in the first."""


def export(config: ExportConfig, source: Source, target: Path) -> None:
    """Write all formats; if one of them fails its check, none is left behind.

    Raises:
        UserError: A format's vectors differ from the student's by more than they may.
    """
    model = load_folder(source.folder)
    texts = some_sentences()
    expected = encoder(model)(texts)
    reports: dict[ExportFormat, dict[str, Any]] = {}
    with replacing_folder(target / ".export") as part:
        for name in config.format:
            log.info("%s: write and compare %d sentences", name, len(texts))
            FORMATS[name].write(model, part / name)
            reports[name] = compare(name, part / name, expected, texts)
            reports[name]["mib"] = folder_mib(part / name)
            write_json(part / name / "export.json", {"source": source.name, **reports[name]})
    for name in config.format:
        (target / ".export" / name).rename(target / name)
    (target / ".export").rmdir()
    Console(width=120).print(_table(reports))


def some_sentences() -> list[str]:
    """Sentences of five languages and all lengths, the same for every export."""
    demo = EvalSetConfig(
        kind="bitext", split="test", format="demo", languages=["de", "fr", "es", "tr"]
    )
    found = sorted(sentences(load_sets(EvalConfig(sets={"demo": demo}))))
    spread = np.linspace(0, len(found) - 1, min(_COMPARED, len(found))).astype(int)
    # A sentence that is cut, one of a single letter, and letters that no vocabulary knows.
    return [found[i] for i in spread] + [" ".join(found[:60]), "a", "ꙮ ᚠᚢᚦ 漢字"]


def compare(
    name: ExportFormat, folder: Path, expected: np.ndarray, texts: Sequence[str]
) -> dict[str, Any]:
    """Encode with the written folder and compare.

    Returns:
        ``max_difference`` of a coordinate and ``cosine`` (``mean``, ``min``) of unit vectors.

    Raises:
        UserError: The difference is larger than the format allows.
    """
    encode: Encode = FORMATS[name].open(folder)
    found, allowed = encode(texts), FORMATS[name].tolerance
    # Not a number is no parity: compared so that it fails.
    difference = float(np.abs(unit(found) - unit(expected)).max())
    equal = np.array_equal(found, expected) if allowed == 0 else difference <= allowed
    if not (equal and np.isfinite(found).all()):
        raise UserError(
            f"{name}: its vectors differ from the student's by up to {difference:.2g}; "
            f"allowed: {allowed:g}; nothing was written"
        )
    cosine = (unit(found) * unit(expected)).sum(1)
    return {
        "max_difference": difference,
        "cosine": {"mean": float(cosine.mean()), "min": float(cosine.min())},
    }


def _table(reports: dict[ExportFormat, dict[str, Any]]) -> Table:
    table = Table("format", "MiB", "max difference", "min cosine")
    for name, report in reports.items():
        cells = f"{report['mib']:.2f}", f"{report['max_difference']:.1e}"
        table.add_row(name, *cells, f"{report['cosine']['min']:.6f}")
    return table
