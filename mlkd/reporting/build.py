"""Writes all files of a report."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlkd.metrics.summary import numbers
from mlkd.reporting.collect import ReportCell, curves
from mlkd.reporting.compare import comparable, group_seeds
from mlkd.reporting.figures import PICTURES, draw_figures
from mlkd.reporting.page import write_page
from mlkd.reporting.tables import write_csv, write_curves, write_markdown, write_references
from mlkd.reporting.uses import uses_of
from mlkd.storage.files import replacing_files
from mlkd.training.ratios import ratios_of

log = logging.getLogger(__name__)


def write_report(cells: Sequence[ReportCell], folder: Path, title: str) -> Path:
    """Write ``report.html`` and ``.md``, PNG pictures, and for programs three CSV files.

    Returns:
        The page.
    """
    kept, odd = comparable(cells)
    if odd:
        names = ", ".join(cell.id for cell in odd)
        log.warning("scored on other evaluation sets, so not compared: %s", names)
    groups = group_seeds(kept)
    references = references_of(kept)
    lines = curves(cell for group in groups for cell in group.cells)
    known = {name: numbers(m) for name, m in references.items()}
    found = {link: ratios_of(link) for link in lines}
    ratios = {link: one for link, one in found.items() if one is not None}
    uses = uses_of(groups)
    with replacing_files(folder, removed=[f"{name}.png" for name in PICTURES]) as part:
        pictures = draw_figures(groups, known, lines, ratios, part)
        write_csv(part / "table.csv", groups)
        write_references(part / "references.csv", references)
        write_curves(part / "curves.csv", lines)
        write_markdown(part / "report.md", groups, odd, references, uses, pictures)
        write_page(part / "report.html", groups, odd, references, lines, ratios, uses, title)
    return folder / "report.html"


def references_of(cells: Sequence[ReportCell]) -> dict[str, dict[str, Any]]:
    """What cells are compared with, by name; further assistants are ``assistant 2`` and so on."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in cells:
        for name, metrics in cell.record.get("references", {}).items() if cell.measured else ():
            # Equal scores are one encoder, timed again.
            found.setdefault(name, {})[json.dumps(metrics["scores"], sort_keys=True)] = metrics
    return {
        f"{name} {number}" if number > 1 else name: metrics
        for name, several in found.items()
        for number, metrics in enumerate(several.values(), start=1)
    }
