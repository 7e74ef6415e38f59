"""Finds run records and turns them into cells; reads nothing but JSON and CSV files."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mlkd.config.paths import OUTPUTS, user_path
from mlkd.metrics.summary import columns, numbers
from mlkd.output.errors import UserError
from mlkd.output.secrets import redacted
from mlkd.runs.record import chain_of, inputs_of, read_record, warn_once

log = logging.getLogger(__name__)

Status = Literal["finished", "failed", "interrupted", "running", "missing"]
Curve = dict[str, list[tuple[int, float]]]
"""Steps and values of a run by the name of the value."""


@dataclass(frozen=True)
class ReportCell:
    """One chain of a comparison: a cell of a sweep, or the last link of a chain on its own."""

    id: str
    """Of the last link's run; of the sweep's entry where there is no run yet."""
    status: Status
    config: dict[str, Any]
    """Resolved configuration; empty where only ``overrides`` are known."""
    record: dict[str, Any]
    """Run record of the last link; empty where there is none."""
    links: tuple[Path, ...]
    """Run folders of the chain so far, in order."""
    sweep: str | None = None
    """Name of the multirun folder."""
    overrides: dict[str, str] = field(default_factory=dict)
    """What sets a cell apart in its sweep."""
    error: str | None = None
    log: str | None = None
    student_seconds: float | None = None
    """Training time of the last link and of those that it started from, back to where the student
    was new; None where one is not finished or not there, or no link trains a student."""

    @property
    def measured(self) -> dict[str, Any]:
        """Scores, size and speed; empty unless the cell is finished."""
        metrics = self.record.get("metrics") if self.status == "finished" else None
        return metrics or {}

    @property
    def evaluation(self) -> frozenset[tuple[str, str, str, str, str]]:
        """What it was scored on and how; only equal ones compare.

        Set, split, language pair, a hash of its sentences ("" in old records), precision.
        """
        sets = self.measured.get("scores", {}).get("sets", {})
        how = self.measured.get("precision", "fp32")
        return frozenset(
            (name, entry["split"], pair, entry.get("content", {}).get(pair, ""), how)
            for name, entry in sets.items()
            for pair in entry["pairs"]
        )


def collect(sources: Sequence[str]) -> list[ReportCell]:
    """All cells of sweeps and folders; a finished run is one of them, also if two sweeps have it.

    Args:
        sources: Multirun folders (or their ``sweep.json``), output folders, folders of runs, or
            folders of single runs.

    Raises:
        UserError: A source does not exist or holds no run.
    """
    cells: dict[Any, ReportCell] = {}
    taken: set[Path] = set()
    for source in sources:
        sweeps, runs = _open(user_path(source))
        found: list[ReportCell] = []
        for folder in sweeps:
            found += _sweep_cells(folder)
        taken |= {link.resolve() for cell in found for link in cell.links}
        found += [c for c in _run_cells(runs) if c.links[-1].resolve() not in taken]
        if not found:
            raise UserError(f"{source}: no runs and no sweeps in it; give an output folder, a "
                            "multirun folder, or the folder of a run")  # fmt: skip
        for cell in found:
            one = cell.links[-1].resolve() if cell.status == "finished" else (cell.sweep, cell.id)
            cells.setdefault(one, cell)
    return list(cells.values())


def curves(cells: Iterable[ReportCell]) -> dict[Path, Curve]:
    """Curves of all runs of some cells by run folder; runs that cells share are there once."""
    return {link: curve(link) for link in dict.fromkeys(x for cell in cells for x in cell.links)}


def curve(folder: Path, points: int = 200) -> Curve:
    """Curves of a run, thinned to at most so many points each."""
    path = folder / "curves" / "metrics.csv"
    found: Curve = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    known = value and "/" in (name or "") and (row.get("step") or "").isdigit()
                    if known and math.isfinite(number := float(value)):  # not of a skipped batch
                        found.setdefault(name, []).append((int(row["step"]), number))
    return {name: _thinned(values, points) for name, values in found.items()}


def _thinned(values: list[Any], points: int) -> list[Any]:
    """Evenly spread values, the last one among them."""
    step = -(-len(values) // points)
    return values[::-1][:: max(1, step)][::-1]


def _open(path: Path) -> tuple[list[Path], list[Path]]:
    """Multirun folders and run folders of a source."""
    if path.name == "sweep.json":
        path = path.parent
    if (path / "sweep.json").is_file():
        return [path], []
    if (path / "run.json").is_file():
        return [], [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give an output folder, a multirun folder, or "
                        "the folder of a run")  # fmt: skip
    sweeps = [p.parent for p in sorted(path.glob("multirun/*/sweep.json"))]
    runs = path / "runs" if (path / "runs").is_dir() else path
    return sweeps, [p.parent for p in sorted(runs.glob("*/run.json"))]


def _record(folder: Path) -> dict[str, Any]:
    """A run record; ``{"status": "damaged"}`` in place of a damaged one, which is said."""
    try:
        record = read_record(folder)
        _try_out(record)
        return record
    except UserError as error:
        warn_once(str(error))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        warn_once(f"{folder / 'run.json'}: not a record of this version ({error!r})")
    return {"status": "damaged"}


def _try_out(record: dict[str, Any]) -> None:
    """Read of a record what a report reads of it."""
    for metrics in (record.get("metrics") or {}, *(record.get("references") or {}).values()):
        numbers(metrics, record.get("share"))
        columns(metrics)
    if training := record.get("training"):
        training["precision"], float(training["seconds"])


def _read(path: Path) -> dict[str, Any]:
    """A JSON object of a sweep; empty where the file is no such thing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _entries(path: Path) -> list[dict[str, Any]]:
    """Entries of the cells in a sweep's record; odd ones are left out, and that is said."""
    kinds = {"id": str, "runs": list, "overrides": dict, "status": str}
    cells = _read(path).get("cells")
    entries = cells if isinstance(cells, list) else []
    known = [
        entry
        for entry in entries
        if isinstance(entry, dict)
        and all(isinstance(entry.get(key), kind) for key, kind in kinds.items())
        and all(isinstance(run, str) for run in entry["runs"])
    ]
    if not isinstance(cells, list) or len(known) < len(entries):
        log.warning("%s: damaged, %d cells can be read", path, len(known))
    return known


def _sweep_cells(folder: Path) -> list[ReportCell]:
    """Cells of one sweep, those without a run included."""
    cells: list[ReportCell] = []
    records: dict[Path, dict[str, Any]] = {}  # cells share links
    for entry in _entries(folder / "sweep.json"):
        config = _read(folder / "jobs" / f"{entry['id']}.json").get("config")
        config = config if isinstance(config, dict) else {}
        runs = [_run_folder(folder, name, config) for name in entry["runs"]]
        known = tuple(path for path in runs if path is not None)
        records |= {path: _record(path) for path in known if path not in records}
        record = records[runs[-1]] if runs and runs[-1] else {}
        status, error = entry["status"], entry.get("error")
        if status == "finished":
            status, error = _status(record)
        elif record.get("status") in {"running", "interrupted"} and status == "missing":
            status = record["status"]
        cells.append(
            ReportCell(
                id=record.get("id", entry["id"]) if status == "finished" else entry["id"],
                status=status,
                config=redacted(config or record.get("config") or {}),
                record=record,
                links=known,
                sweep=folder.name,
                overrides=entry["overrides"],
                error=error,
                log=entry.get("log"),
                student_seconds=_student_seconds(known[-1], records) if known else None,
            )
        )
    return cells


def _run_folder(sweep: Path, name: str, config: dict[str, Any]) -> Path | None:
    """Where the run of a sweep lies: below the same output folder as the sweep itself."""
    places = [parent / "runs" / name for parent in sweep.resolve().parents]
    places.append(Path(config.get("output_dir", OUTPUTS), "runs", name))
    return next((place for place in places if place.is_dir()), None)


def _run_cells(folders: Iterable[Path]) -> list[ReportCell]:
    """Last links of chains among run folders."""
    asked = list(folders)
    siblings = {p.parent for folder in asked for p in folder.parent.glob("*/run.json")}
    records = {folder: _record(folder) for folder in sorted(siblings)}
    chains = {folder: chain_of(folder, records) for folder in records}
    followed = {before for chain in chains.values() for before in chain[:-1]}
    cells = []
    for folder in asked:
        record = records[folder]
        # The last link of a chain has the numbers of its references, also where another chain
        # goes on from it.
        if len(asked) > 1 and folder in followed and not record.get("references"):
            continue
        config = record.get("config") or {}
        link = record.get("link", folder.name)
        status, error = _status(record)
        stops = status == "finished" and "references" not in record
        if stops and config.get("stage", link) != link:
            status, error = "missing", f"the chain stopped after {link}"
        elif config:
            config = config | {"stage": link}
        links = tuple(chains[folder])
        taken = _student_seconds(folder, records)
        cells.append(
            ReportCell(
                folder.name, status, config, record, links, error=error, student_seconds=taken
            )
        )
    return cells


def _student_seconds(folder: Path, records: Mapping[Path, Mapping[str, Any]]) -> float | None:
    """Training time of a run and of those that it started from, back to where the student is new.

    Args:
        folder: Of the run.
        records: Those of the runs beside it as well, by folder.
    """
    total = 0.0
    for _ in records:  # as many steps at most, whatever they say
        record = records.get(folder, {})
        training = record.get("training")
        finished = record.get("status") == "finished" and record.get("trains_student", True)
        if not finished or not training:
            return None
        total += float(training["seconds"])
        if (start := inputs_of(record).get("start")) is None:
            return round(total, 1)
        folder = folder.parent / start
    return None


def _status(record: dict[str, Any]) -> tuple[Status, str | None]:
    """Status of a run record, and a word on what went wrong."""
    status = record.get("status", "missing")
    if status == "damaged":
        return "failed", "run.json is damaged"
    if status == "finished" and not record.get("metrics"):
        return "interrupted", "it is trained, but not evaluated yet"
    return status, record.get("reason")
