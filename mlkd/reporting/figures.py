"""Pictures for papers, as PNG files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlkd.metrics.summary import MEASURES
from mlkd.reporting.collect import Curve
from mlkd.reporting.compare import Group, Spread, front, heat_maps
from mlkd.runs.record import link_of
from mlkd.storage.files import replacing
from mlkd.training.ratios import COLOURS, Ratios, draw_ratios, size

PICTURES = ("front", "heat-maps", "languages", "curves", "ratios")
"""Names of the pictures, in their order."""
_DPI = 200
_MOST_RATIOS = 12
"""Runs whose ratios are in one picture, the first ones; the page has all."""


def draw_figures(
    groups: Sequence[Group],
    references: dict[str, dict[str, float]],
    curves: Mapping[Path, Curve],
    ratios: Mapping[Path, Ratios],
    folder: Path,
) -> list[Path]:
    """Write the pictures that the cells have numbers for.

    Args:
        groups: Cells by settings.
        references: Numbers of the teacher and the assistant.
        curves: By run folder.
        ratios: The same.
        folder: Where the files go.
    """
    figures = (
        _front(groups, references), _heat_maps(groups), _languages(groups), _curves(curves),
        _ratios(groups, ratios),
    )  # fmt: skip
    written = []
    for name, figure in zip(PICTURES, figures, strict=True):
        path = folder / f"{name}.png"
        if figure is None:
            continue
        with replacing(path) as part:
            figure.savefig(part, format="png", dpi=_DPI)
        written.append(path)
    return written


def _front(groups: Sequence[Group], references: dict[str, dict[str, float]]) -> Figure | None:
    known = [g for g in groups if {"mib", "test_sts"} <= g.numbers.keys()]
    if not known:
        return None
    figure, axes = _figure(6.0, 4.0)
    best = front(groups, "mib", "test_sts")
    axes.plot(
        [g.numbers["mib"].mean for g in best],
        [g.numbers["test_sts"].mean for g in best],
        color=COLOURS[0],
        drawstyle="steps-post",
        label="front",
    )
    for group in known:
        size, score = group.numbers["mib"], group.numbers["test_sts"]
        on_front = group in best
        axes.errorbar(
            size.mean,
            score.mean,
            yerr=score.sd,
            color=COLOURS[0 if on_front else 1],
            marker="o" if on_front else "s",
            capsize=3,
        )
    for name, values in references.items():
        colour = COLOURS[2 if name.startswith("teacher") else 3]
        if {"mib", "test_sts"} <= values.keys():
            axes.plot(values["mib"], values["test_sts"], "^", color=colour, label=name, ms=8)
    axes.set_xlabel(MEASURES["mib"])
    axes.set_ylabel(MEASURES["test_sts"])
    axes.legend(frameon=False)
    return figure


def _heat_maps(groups: Sequence[Group]) -> Figure | None:
    maps = [m for m in heat_maps(groups) if any("test_sts" in g.numbers for g in m.groups.values())]
    if not maps:
        return None
    figure = Figure(figsize=(4.0 * len(maps), 3.4), layout="constrained")
    low, high = _range([g.numbers.get("test_sts") for m in maps for g in m.groups.values()])
    for axes, item in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
        grid = np.full((len(item.bottlenecks), len(item.recurrences)), np.nan)
        for (i, e), (j, r) in itertools.product(
            enumerate(item.bottlenecks), enumerate(item.recurrences)
        ):
            group = item.groups.get((e, r))
            value = group.numbers.get("test_sts") if group else None
            if value is not None:
                grid[i, j] = value.mean
            word = f"{value.mean:.1f}" if value else status_of(group) if group else ""
            # cividis is dark at its lower end.
            light = value is not None and value.mean < (low + high) / 2
            axes.text(j, i, word, ha="center", va="center", color="w" if light else "k")
        image = axes.imshow(grid, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        axes.set_xticks(range(len(item.recurrences)), [str(r) for r in item.recurrences])
        axes.set_yticks(range(len(item.bottlenecks)), [width(e) for e in item.bottlenecks])
        axes.set_xlabel("recurrence R")
        axes.set_ylabel("bottleneck e")
        axes.set_title(item.title, fontsize=9)
    figure.colorbar(image, ax=figure.axes, label=MEASURES["test_sts"])
    return figure


def _languages(groups: Sequence[Group]) -> Figure | None:
    rows = [g for g in groups if g.pairs]
    columns = list(dict.fromkeys(k for g in rows for k in g.pairs if k[0] == "test"))
    if not columns:
        return None
    words = 0.055 * max(len(g.label) for g in rows)  # inches that the longest name takes
    figure, axes = _figure(2.5 + words + 0.6 * len(columns), 1.5 + 0.35 * len(rows))
    grid = np.array([[g.pairs[c].mean if c in g.pairs else np.nan for c in columns] for g in rows])
    image = axes.imshow(grid, cmap="cividis", aspect="auto")
    low, high = np.nanmin(grid), np.nanmax(grid)
    for (i, j), value in np.ndenumerate(grid):
        colour = "w" if value < (low + high) / 2 else "k"
        axes.text(j, i, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=7)
    labels = [f"{name} {pair}" for _, name, pair in columns]
    axes.set_xticks(range(len(columns)), labels, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(rows)), [g.label for g in rows], fontsize=7)
    figure.colorbar(image, label="test score ×100")
    return figure


def _curves(curves: Mapping[Path, Curve]) -> Figure | None:
    """Dev loss of each stage, one line a run."""
    stages: dict[str, list[Any]] = {}
    for folder, known in curves.items():
        if points := known.get("dev/loss"):
            stages.setdefault(link_of(folder), []).append(points)
    if not stages:
        return None
    figure = Figure(figsize=(3.2 * len(stages), 3.0), layout="constrained")
    drawn = zip(figure.subplots(1, len(stages), squeeze=False)[0], stages.items(), strict=True)
    for axes, (stage, lines) in drawn:
        for number, points in enumerate(lines):
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, color=COLOURS[number % len(COLOURS)], marker=".", lw=1)
        axes.set_title(stage)
        axes.set_xlabel("step")
        axes.set_ylabel("dev loss")
    return figure


def _ratios(groups: Sequence[Group], known: Mapping[Path, Ratios]) -> Figure | None:
    """A line of pictures for each run that has ratios of layers and domains."""
    shown = [*known.items()][:_MOST_RATIOS]
    if not shown:
        return None
    sizes = [size(ratios) for _, ratios in shown]
    wide, high = max(w for w, _ in sizes), sum(h for _, h in sizes)
    figure = Figure(figsize=(wide, high), layout="constrained")
    if len(known) > len(shown):
        figure.suptitle(
            f"The first {len(shown)} of {len(known)} runs; the page has all", fontsize=9
        )
    parts = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=[h for _, h in sizes])
    for part, (folder, ratios) in zip(parts[:, 0], shown, strict=True):
        field, lines = part.subplots(1, 2)
        part.colorbar(draw_ratios(ratios, field, lines), ax=[field], label="ratio")
        part.suptitle(fill(title_of(folder, groups), 90), fontsize=9)
    return figure


def title_of(folder: Path, groups: Sequence[Group]) -> str:
    """What tells a run from others: the settings and the seed of its one cell, or its name."""
    owners = [(g, cell) for g in groups for cell in g.cells if folder in cell.links]
    if len(owners) != 1:
        return folder.name
    group, cell = owners[0]
    return group.label + (f" seed={cell.config.get('seed')}" if len(group.cells) > 1 else "")


def status_of(group: Group) -> str:
    """Word for a group without numbers."""
    return group.cells[0].status


def width(bottleneck: Any) -> str:
    """Word for a bottleneck; null is the full width."""
    return "full" if bottleneck is None else str(bottleneck)


def _figure(wide: float, high: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(wide, high), layout="constrained")
    return figure, figure.subplots()


def _range(values: Sequence[Spread | None]) -> tuple[float, float]:
    means = [value.mean for value in values if value is not None]
    return min(means), max(means)
