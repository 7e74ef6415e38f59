"""``report.html``: one page that holds everything it needs and works from disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import plotly.offline
import yaml

from mlkd.metrics.summary import COSTS, MEASURES, numbers, pair_scores
from mlkd.output.label import text
from mlkd.reporting.collect import Curve, ReportCell
from mlkd.reporting.compare import Group, front, heat_maps
from mlkd.reporting.figures import status_of, title_of, width
from mlkd.reporting.tables import command, count_statuses, training_seconds
from mlkd.reporting.uses import Use
from mlkd.runs.record import link_of
from mlkd.storage.files import replacing
from mlkd.training.ratios import Ratios

COLUMNS = (
    "parameters", "mib", "diff_mib", "latency_ms", "dev_sts", "test_sts", "test_bitext", "kept",
)  # fmt: skip
"""Numbers in the table, as far as some cell has them."""

_HEADS = {
    "parameters": "params M",
    "mib": "MiB",
    "diff_mib": "diff MiB",
    "latency_ms": "ms",
    "dev_sts": "dev STS",
    "dev_bitext": "dev bitext",
    "test_sts": "test STS",
    "test_bitext": "test bitext",
    "kept": "kept %",
}


def write_page(
    path: Path,
    groups: Sequence[Group],
    odd: Sequence[ReportCell],
    references: dict[str, dict[str, Any]],
    curves: Mapping[Path, Curve],
    ratios: Mapping[Path, Ratios],
    uses: Sequence[Use],
    title: str,
) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        groups: Cells by settings.
        odd: Cells that were scored on other sets and are only named.
        references: What was measured of the teacher and the assistant.
        curves: By run folder.
        ratios: The same, of layers and domains.
        uses: Tables of evaluations.
        title: Names the comparison.
    """
    cells = [cell for group in groups for cell in group.cells]
    known = [numbers(cell.measured, cell.record.get("share")) for cell in cells]
    columns = [name for name in COLUMNS if any(name in values for values in known)]
    settings = list(dict.fromkeys(key for group in groups for key in group.settings))
    data = _data(groups, references, curves) | {"ratios": _ratios(groups, ratios)}
    here = files("mlkd.reporting")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (here / "page.html").read_text(encoding="utf-8")
    )
    html = template.render(
        title=title,
        summary=count_statuses(cells),
        odd=[cell.id for cell in odd],
        bad=[(cell, group) for group in groups for cell in group.cells if not cell.measured],
        rows=_rows(groups, settings, columns),
        heads=[*settings, "seed"],
        columns=[_HEADS[name] for name in columns],
        maps=len(data["maps"]),
        ratios=bool(ratios),
        uses=uses,
        stages=list(dict.fromkeys(run["stage"] for run in reversed(data["curves"]))),
        has_seeds=any(len(group.cells) > 1 for group in groups),
        seeds=_seed_rows(groups, columns),
        statuses=sorted({cell.status for cell in cells}),
        style=(here / "page.css").read_text(encoding="utf-8"),
        script=(here / "page.js").read_text(encoding="utf-8"),
        plotly=plotly.offline.get_plotlyjs(),
        data=data,
        embedded=_embedded(data),
    )
    with replacing(path) as part:
        part.write_text(html, encoding="utf-8")


def _data(
    groups: Sequence[Group],
    references: dict[str, dict[str, Any]],
    curves: Mapping[Path, Curve],
) -> dict[str, Any]:
    """What the pictures and the dialog show."""
    known = {name for group in groups for name in group.numbers}
    costs = [name for name in COSTS if name in known]
    qualities = [n for n in MEASURES if n in known and n not in COSTS and n != "sentences_per_s"]
    number = {id(group): i for i, group in enumerate(groups)}
    return {
        "measures": {name: MEASURES[name] for name in MEASURES if name in known},
        "costs": costs,
        "qualities": qualities,
        "fronts": {
            f"{cost} {quality}": [number[id(group)] for group in front(groups, cost, quality)]
            for cost in costs
            for quality in qualities
        },
        "groups": [
            {
                "label": group.label,
                "settings": group.settings,
                "numbers": {name: asdict(value) for name, value in group.numbers.items()},
                "pairs": {" ".join(k): asdict(value) for k, value in group.pairs.items()},
                "cells": [_cell(cell) for cell in group.cells],
            }
            for group in groups
        ],
        "references": [
            {
                "name": name,
                "numbers": numbers(values),
                "pairs": {" ".join(k): v for k, v in pair_scores(values).items()},
            }
            for name, values in references.items()
        ],
        "maps": [
            {
                "title": item.title,
                "rows": [width(e) for e in item.bottlenecks],
                "columns": [str(r) for r in item.recurrences],
                "fields": [
                    [
                        number[id(item.groups[e, r])] if (e, r) in item.groups else None
                        for r in item.recurrences
                    ]
                    for e in item.bottlenecks
                ],
                "status": [
                    [
                        status_of(item.groups[e, r]) if (e, r) in item.groups else ""
                        for r in item.recurrences
                    ]
                    for e in item.bottlenecks
                ],
            }
            for item in heat_maps(groups)
        ],
        "curves": [
            {"run": link.name, "stage": link_of(link), "values": values}
            for link, values in curves.items()
            if values
        ],
    }


def _ratios(groups: Sequence[Group], known: Mapping[Path, Ratios]) -> list[dict[str, Any]]:
    """What the pictures of ratios show, run by run."""
    return [
        {
            "run": folder.name,
            "title": title_of(folder, groups),
            "steps": ratios.steps,
            "domains": ratios.domains,
            "states": ratios.states,
            "values": ratios.values.tolist(),
            "kept": ratios.kept,
        }
        for folder, ratios in known.items()
    ]


def _cell(cell: ReportCell) -> dict[str, Any]:
    """What the dialog says of a cell."""
    return {
        "id": cell.id,
        "sweep": cell.sweep,
        "status": cell.status,
        "seed": cell.config.get("seed"),
        "error": cell.error,
        "log": cell.log,
        "folder": str(cell.links[-1]) if cell.links else None,
        "links": [link.name for link in cell.links],
        "seconds": training_seconds(cell),
        "command": command(cell),
        "config": yaml.safe_dump(cell.config, sort_keys=False) if cell.config else None,
    }


def _rows(
    groups: Sequence[Group], settings: Sequence[str], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Lines of the table of cells; ``sort`` is what a column sorts by."""
    rows = []
    for number, group in enumerate(groups):
        for position, cell in enumerate(group.cells):
            values = numbers(cell.measured, cell.record.get("share"))
            own = [_shown(key, group.settings) for key in settings]
            own.append(str(cell.config.get("seed", "")))
            rows.append(
                {
                    "group": number,
                    "position": position,
                    "label": cell.id,
                    "status": cell.status,
                    "settings": own,
                    "numbers": [
                        (f"{values[name]:.2f}", values[name]) if name in values else ("–", "")
                        for name in columns
                    ],
                }
            )
    return rows


def _shown(key: str, settings: Mapping[str, Any]) -> str:
    """Word for a setting of a group; the bottleneck's null is the full width."""
    if key not in settings:
        return ""
    return width(settings[key]) if key == "bottleneck" else text(settings[key])


def _seed_rows(groups: Sequence[Group], columns: Sequence[str]) -> list[tuple[str, int, list[str]]]:
    """Mean ± spread of each group."""
    rows = []
    for group in groups:
        words = []
        for name in columns:
            value = group.numbers.get(name)
            spread = f" ± {value.sd:.2f}" if value and value.sd is not None else ""
            words.append(f"{value.mean:.2f}{spread}" if value else "–")
        rows.append((group.label, sum(bool(cell.measured) for cell in group.cells), words))
    return rows


def _embedded(value: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
