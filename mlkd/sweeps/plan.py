"""What a sweep is going to do, said before it starts, and what came of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table

from mlkd.config.schema import TrainConfig
from mlkd.config.stages import StageSettings
from mlkd.output.label import label
from mlkd.recipes.identity import link_keys
from mlkd.recipes.recipe import Link, links
from mlkd.runs.index import Finished
from mlkd.sweeps.tree import Job


def describe_plan(
    jobs: Sequence[Job],
    pending: Sequence[Job],
    impossible: Mapping[str, str],
    known: Mapping[str, Finished],
    launcher: str,
) -> list[str]:
    """The plan in lines.

    Args:
        jobs: All jobs of the sweep.
        pending: Those that run now.
        impossible: Combinations that are left out, and why.
        known: Finished runs by their settings.
        launcher: Where the jobs run.
    """
    cells = [job for job in jobs if job.is_cell]
    todo = {job.id for job in pending}
    left = [job for job in cells if job.id in todo]
    lines = [
        f"cells: {len(cells)}, {len(cells) - len(left)} of them finished, "
        f"{len(impossible)} combinations left out"
    ]
    lines += [f"  left out: {label}: {reason}" for label, reason in impossible.items()]
    for job in jobs:
        if not job.is_cell:
            word = "to run first" if job.id in todo else "exists"
            run = f" ({known[job.key].id})" if job.key in known else ""
            lines.append(f"shared: {job.label}: {word}{run}")
    lines.append(f"to run: {len(pending) - len(left)} shared jobs, {len(left)} cells on {launcher}")
    lines.append(f"estimated cost: {cost((job.config for job in pending), known)}")
    return lines


def cost(configs: Iterable[TrainConfig], known: Mapping[str, Finished]) -> str:
    """Training time of the missing links of some chains, judged by finished runs, in words.

    A link is judged by finished runs of the same name with the same budget; where it runs the whole
    student, time grows with the layers that a sentence passes.
    """
    missing: dict[str, tuple[TrainConfig, Link]] = {}
    for config in configs:
        keys = link_keys(config)
        for link in links(config):
            missing.setdefault(keys[link.name], (config, link))
    todo = [item for key, item in missing.items() if key not in known]
    guesses = [_seconds(config, link, list(known.values())) for config, link in todo]
    pairs = zip(todo, guesses, strict=True)
    blind = sorted({link.name for (_, link), guess in pairs if guess is None})
    total = sum(guess for guess in guesses if guess is not None)
    words = f"{len(todo)} links to train, about {duration(total)} of one process"
    if blind:
        words = f"{len(todo)} links to train" + (f", {duration(total)} and more" if total else "")
        words += f" (no finished run with this budget to judge by: {', '.join(blind)})"
    return words


def summary_table(entries: Sequence[Mapping[str, Any]], known: Mapping[str, Finished]) -> Table:
    """The cells of a sweep: what came of them."""
    by_id = {run.id: run for run in known.values()}
    table = Table("cell", "overrides", "status", "dev", "MiB", "seconds", "error")
    for entry in entries:
        run = by_id.get(entry["runs"][-1]) if entry["runs"] else None
        mib = f"{run.mib:.1f}" if run is not None and run.mib is not None else ""
        score = "" if entry["score"] is None else f"{entry['score']:.1f}"
        seconds = "" if entry["seconds"] is None else f"{entry['seconds']:.0f}"
        error = entry["error"] or ""
        named = label(entry["overrides"])
        table.add_row(entry["id"], named, entry["status"], score, mib, seconds, error)
    return table


def duration(seconds: float) -> str:
    """Seconds in a unit that people read."""
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def _seconds(config: TrainConfig, link: Link, runs: Sequence[Finished]) -> float | None:
    """Guess of a link's training time; None without a run to judge by."""
    budget = _cost_of(link.settings.deciding())
    depth = config.student.layers * config.student.recurrence
    is_deep = link.trains_student and link.settings.whole
    alike = [
        run.seconds
        / run.steps
        * _steps(link.settings, run)
        * (depth / run.depth if is_deep else 1.0)
        for run in runs
        if run.link == link.name and budget == _cost_of(run.budget)
    ]
    return statistics.median(alike) if alike else None


def _cost_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a link that decide how long it takes, but for its share of the data."""
    beside = {"fraction", "lr", "loss", "optim"}
    return {key: value for key, value in settings.items() if key not in beside}


def _steps(settings: StageSettings, run: Finished) -> float:
    """Steps of a link, at most, judged by a run of it on another share of the data."""
    limit = math.inf if settings.max_steps is None else settings.max_steps
    share = settings.fraction / run.budget["fraction"]
    return limit if run.steps >= limit else min(limit, run.steps * share)
