"""The comparison as text: CSV files for programs, ``report.md`` for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlkd.config.command_line import command_of
from mlkd.metrics.summary import MEASURES, columns, numbers
from mlkd.metrics.table import grid_to_markdown, records_of, row_of, to_markdown
from mlkd.output.label import label
from mlkd.reporting.collect import Curve, ReportCell
from mlkd.reporting.compare import Group, front
from mlkd.reporting.uses import Use
from mlkd.storage.files import replacing, write_rows


def write_csv(path: Path, groups: Sequence[Group]) -> None:
    """One row a cell, failed and missing ones included; empty fields where there is no number."""
    rows: list[dict[str, Any]] = []
    for group in groups:
        for cell in group.cells:
            row: dict[str, Any] = {"id": cell.id, "sweep": cell.sweep, "status": cell.status}
            row |= group.settings | {"seed": cell.config.get("seed")}
            row |= numbers(cell.measured, cell.record.get("share"))
            row |= columns(cell.measured)
            row |= {"error": cell.error, "log": cell.log} | _provenance(cell)
            rows.append(row)
    write_rows(path, rows)


def write_references(path: Path, references: Mapping[str, dict[str, Any]]) -> None:
    """One row an encoder that the cells were compared with: the teacher and the assistant."""
    write_rows(path, records_of(references))


def write_curves(path: Path, curves: Mapping[Path, Curve]) -> None:
    """One row a validation of each run: ``id``, ``step`` and the dev values."""
    rows: list[dict[str, Any]] = []
    for link, values in curves.items():
        steps: dict[int, dict[str, Any]] = {}
        for name, points in values.items():
            for step, value in points if name.startswith("dev/") else []:
                steps.setdefault(step, {"id": link.name, "step": step})[name] = value
        rows += steps.values()
    write_rows(path, rows)


def write_markdown(
    path: Path,
    groups: Sequence[Group],
    odd: Sequence[ReportCell],
    references: dict[str, dict[str, Any]],
    uses: Sequence[Use],
    pictures: Sequence[Path],
) -> None:
    """The same for a Markdown reader: tables, front, seeds, uses, failures, pictures."""
    cells = [cell for group in groups for cell in group.cells]
    parts = ["# Comparison\n", f"{count_statuses(cells)}\n"]
    labels = {cell.id: group.label for group in groups for cell in group.cells}
    measured = [cell for cell in cells if cell.measured]
    if measured:
        rows = [row_of(name, values) for name, values in references.items()]
        rows += [row_of(labels[c.id], c.measured, c.record.get("share")) for c in measured]
        parts += ["## Scores\n", "Scores are ×100; test sets selected nothing.\n"]
        parts.append(to_markdown(rows))
    best = front(groups, "mib", "test_sts")
    if best:
        parts.append("## Front: no other is smaller and better\n")
        parts += [
            f"- {g.label}: {g.numbers['mib'].mean:.1f} MiB, {_written(g, 'test_sts')}\n"
            for g in best
        ]
    if any(len(group.cells) > 1 for group in groups):
        parts += ["## Over seeds\n", _seeds(groups)]
    for use in uses:
        parts += [f"## {use.title}\n", f"{use.note}\n", grid_to_markdown(use.grid, use.words)]
    bad = [cell for cell in cells if cell.status != "finished"]
    if bad:
        parts.append("## Not finished\n")
        parts += [f"- {labels[c.id]}: {c.status}{_because(c)}\n" for c in bad]
    if odd:
        parts.append("## Scored on other evaluation sets, so not compared\n")
        parts += [f"- {cell.id}\n" for cell in odd]
    parts += [f"![{picture.stem}]({picture.name})\n" for picture in pictures]
    with replacing(path) as part:
        part.write_text("\n".join(parts), encoding="utf-8")


def describe_student(cell: ReportCell) -> str:
    """What a selected student is, and how to get it into a program."""
    values = numbers(cell.measured, cell.record.get("share"))
    lines = [f"{MEASURES[name]}: {value:.2f}" for name, value in values.items()]
    folder = cell.links[-1]
    return "\n".join(
        [
            *lines,
            f"trained by: {command(cell) or 'a command of another version'}",
            f"export it: python -m mlkd.export run={folder}",
            f"student: {folder / 'student'}",
        ]
    )


def count_statuses(cells: Sequence[ReportCell]) -> str:
    """How many cells there are of each status."""
    counts = {
        status: sum(cell.status == status for cell in cells)
        for status in ("finished", "running", "interrupted", "failed", "missing")
    }
    told = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    return f"{len(cells)} cells: {told}"


def _provenance(cell: ReportCell) -> dict[str, Any]:
    """What a number needs to be believed: when, where, with which code and command."""
    record = cell.record
    return {
        "seconds": training_seconds(cell),
        "student_seconds": cell.student_seconds,
        "peak_memory_mib": record.get("peak_memory_mib"),
        "finished": record.get("finished"),
        "hardware": (record.get("training") or {}).get("hardware"),
        "code": record.get("environment", {}).get("code"),
        "folder": cell.links[-1] if cell.links else None,
        "overrides": label(cell.overrides),
        "command": command(cell),
    }


def training_seconds(cell: ReportCell) -> float | None:
    """Training time of a cell's last link; the links before it may be shared."""
    training = cell.record.get("training")
    return training["seconds"] if training else None


def command(cell: ReportCell) -> str | None:
    """What trains a cell; None where its configuration is not known, or of another version."""
    try:
        return command_of(cell.config) if cell.config else None
    except Exception:  # it fails in Hydra, OmegaConf, pydantic, or here
        return None


def _seeds(groups: Sequence[Group]) -> str:
    shown = [name for name in MEASURES if any(name in group.numbers for group in groups)]
    lines = ["| cell | seeds | " + " | ".join(MEASURES[name] for name in shown) + " |"]
    lines.append("| :-- |" + " --: |" * (1 + len(shown)))
    for group in groups:
        done = sum(bool(cell.measured) for cell in group.cells)
        fields = [_written(group, name) for name in shown]
        lines.append(f"| {group.label} | {done} | " + " | ".join(fields) + " |")
    return "\n".join(lines) + "\n"


def _written(group: Group, name: str) -> str:
    value = group.numbers.get(name)
    if value is None:
        return "-"
    return f"{value.mean:.2f}" + (f" ± {value.sd:.2f}" if value.sd is not None else "")


def _because(cell: ReportCell) -> str:
    return f" ({cell.error})" if cell.error else ""
