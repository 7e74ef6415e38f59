"""What a comparison shows: numbers of cells, seeds together, the front, heat maps, the best."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlkd.config.schema import TrainConfig
from mlkd.config.section import Decides, is_below, undecided
from mlkd.metrics.scoring import select_value
from mlkd.metrics.summary import numbers, pair_scores
from mlkd.output.errors import UserError
from mlkd.output.label import label
from mlkd.reporting.collect import ReportCell
from mlkd.runs.record import flatten

_BESIDE = undecided(TrainConfig, {*Decides} - {Decides.NOTHING, Decides.SCORES})
"""Settings that do not decide the result of a chain."""


@dataclass(frozen=True)
class Spread:
    """A number over seeds."""

    mean: float
    sd: float | None
    """Sample standard deviation; None with a single value."""
    n: int


@dataclass(frozen=True)
class Group:
    """Cells that differ in their seeds alone."""

    label: str
    settings: dict[str, Any]
    """Settings in which the compared cells differ, by short name, without the seed."""
    cells: list[ReportCell]
    numbers: dict[str, Spread]
    pairs: dict[tuple[str, str, str], Spread]
    """Scores by (split, set, language pair)."""


def comparable(cells: Sequence[ReportCell]) -> tuple[list[ReportCell], list[ReportCell]]:
    """Cells scored like most others (or not scored yet), and those scored on other sets."""
    counts = Counter(cell.evaluation for cell in cells if cell.measured)
    if not counts:
        return list(cells), []
    usual = max(counts, key=lambda evaluation: counts[evaluation])
    odd = [cell for cell in cells if cell.measured and cell.evaluation != usual]
    return [cell for cell in cells if cell not in odd], odd


def group_seeds(cells: Sequence[ReportCell]) -> list[Group]:
    """Put cells that differ only in their seed together, in the order of their settings."""
    like = next((_settings(cell) for cell in cells if cell.config), {})
    trained = Counter(c.record["training"]["precision"] for c in cells if "training" in c.record)
    auto = trained.most_common(1)[0][0] if trained else "auto"
    settings = {cell.id: _settings(cell, like, auto) for cell in cells}
    varying = _varying(list(settings.values()))
    groups: dict[str, list[ReportCell]] = {}
    for cell in cells:
        key = {k: v for k, v in settings[cell.id].items() if not _is_seed(k)}
        groups.setdefault(json.dumps(key, sort_keys=True), []).append(cell)
    names = _short_names(varying)
    made = []
    for members in groups.values():
        values = settings[members[0].id]
        shown = {names[key]: values[key] for key in names if key in values and not _is_seed(key)}
        made.append(
            Group(
                label=label(shown) or members[0].id,
                settings=shown,
                cells=members,
                numbers=_spreads([numbers(c.measured, c.record.get("share")) for c in members]),
                pairs=_spreads([pair_scores(c.measured) for c in members]),
            )
        )
    return sorted(made, key=lambda group: [_order(v) for v in group.settings.values()])


def front(groups: Sequence[Group], cost: str, quality: str) -> list[Group]:
    """Groups that no other beats in both: by rising cost, each better than all cheaper ones."""
    known = [g for g in groups if cost in g.numbers and quality in g.numbers]
    known.sort(key=lambda g: (g.numbers[cost].mean, -g.numbers[quality].mean))
    kept: list[Group] = []
    for group in known:
        if not kept or group.numbers[quality].mean > kept[-1].numbers[quality].mean:
            kept.append(group)
    return kept


@dataclass(frozen=True)
class HeatMap:
    """Bottleneck × recurrence where all other settings are the same."""

    title: str
    bottlenecks: list[Any]
    recurrences: list[Any]
    groups: dict[tuple[Any, Any], Group]
    """By (bottleneck, recurrence); combinations that were not asked for are absent."""


def heat_maps(groups: Sequence[Group]) -> list[HeatMap]:
    """One map for each combination of the other settings that has at least two fields."""
    by_rest: dict[str, list[Group]] = {}
    for group in groups:
        rest = label({k: v for k, v in group.settings.items() if k not in _AXES})
        by_rest.setdefault(rest, []).append(group)
    maps = []
    for title, members in by_rest.items():
        fields = {_field(group): group for group in members}
        fields.pop((None, None), None)
        if len(fields) > 1:
            bottlenecks, recurrences = (sorted({f[i] for f in fields}, key=_order) for i in (0, 1))
            maps.append(HeatMap(title, bottlenecks, recurrences, fields))
    return maps


def select(cells: Sequence[ReportCell], budget_mib: float) -> ReportCell:
    """The finished student within a budget that is best on dev; test sets never select.

    Raises:
        UserError: No student is small enough, or the cells were scored on different dev sets.
    """
    students = [cell for cell in cells if cell.measured and cell.record.get("trains_student", True)]
    if not students:
        raise UserError("no finished student in the sources")
    dev = {frozenset(e for e in cell.evaluation if e[1] == "dev") for cell in students}
    if len(dev) > 1:
        raise UserError("sources: the students were scored on different dev sets, so they do not "
                        "compare; give one sweep or folder")  # fmt: skip
    small = [cell for cell in students if cell.measured["mib"] <= budget_mib]
    if not small:
        least = min(cell.measured["mib"] for cell in students)
        raise UserError(f"budget_mib={budget_mib:g}: the smallest student has {least:.3g} MiB")
    return max(small, key=lambda cell: select_value(cell.measured["scores"]))


_AXES = ("bottleneck", "recurrence")
"""Short names of the settings that a heat map has on its axes."""


def _field(group: Group) -> tuple[Any, Any]:
    """Bottleneck and recurrence of a group; (None, None) for a model that is no student."""
    cell = group.cells[0]
    if not cell.record.get("trains_student", True):
        return None, None
    known = _settings(cell)
    return known.get("student.bottleneck"), known.get("student.recurrence")


def _settings(
    cell: ReportCell, like: dict[str, Any] | None = None, auto: str = "auto"
) -> dict[str, Any]:
    """Dotted settings that decide a cell's result.

    Where only the overrides of a cell are known, the others are taken to be those of ``like``. The
    precision is the one it was trained in; ``auto``, for a cell that was not, is the others'.
    """
    every = flatten(cell.config)
    found = {
        key: value
        for key, value in every.items()
        if not is_below(key, _BESIDE) and not _is_common(key, value, every)
    }
    if "training" in cell.record:
        found["trainer.precision"] = cell.record["training"]["precision"]
    elif found.get("trainer.precision") == "auto":
        found["trainer.precision"] = auto
    return found or {**(like or {}), **cell.overrides}


def _is_seed(key: str) -> bool:
    return key.split(".")[-1] == "seed"


def _is_common(key: str, value: Any, every: dict[str, Any]) -> bool:
    """Whether a setting of a link's optimiser is that of the chain, which is shown once."""
    parts = key.split(".")
    return parts[2:3] == ["optim"] and every.get(".".join(parts[2:]), value) == value


def _varying(settings: list[dict[str, Any]]) -> list[str]:
    """Keys that do not have the same value everywhere."""
    keys = dict.fromkeys(key for known in settings for key in known)
    return [k for k in keys if len({json.dumps(known.get(k)) for known in settings}) > 1]


def _short_names(keys: list[str]) -> dict[str, str]:
    """The last part of each key, or more of it where several end alike."""
    names = {key: key.split(".")[-1] for key in keys}
    counts = Counter(names.values())
    return {key: name if counts[name] == 1 else key for key, name in names.items()}


def _spreads(values: list[dict[Any, float]]) -> dict[Any, Spread]:
    keys = dict.fromkeys(key for known in values for key in known)
    found = {}
    for key in keys:
        here = [known[key] for known in values if key in known]
        sd = statistics.stdev(here) if len(here) > 1 else None
        found[key] = Spread(statistics.fmean(here), sd, len(here))
    return found


def _order(value: Any) -> tuple[int, Any]:
    """Sorts numbers before words, and null (no bottleneck: the full width) last."""
    if value is None:
        return 2, 0
    return (0, value) if isinstance(value, int | float) else (1, str(value))
