"""Ratios of layers and domains over a training, and their picture."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mlkd.runs.record import DOMAIN_WEIGHTS, read_record

log = logging.getLogger(__name__)

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by colour-blind people (Okabe and Ito, 2008); black last."""
_DASHES = ("-", "--", ":", "-.")
_WRITTEN = 120
"""With more fields a heat map has no numbers on them,"""
_NAMED = 16
"""and with more lines curves have no names."""


@dataclass(frozen=True)
class Ratios:
    """Ratios of L states and D domains at V validations.

    Attributes:
        steps: Of the validations.
        domains: Their names.
        values: ``(V, L, D)``; those of a state add up to 1.
        kept: Which validation's weights were kept.
    """

    steps: tuple[int, ...]
    domains: tuple[str, ...]
    values: np.ndarray
    kept: int

    @property
    def states(self) -> list[str]:
        """What the states are called."""
        return ["embedding", *(f"layer {n}" for n in range(1, self.values.shape[1]))]


def ratios_of(folder: Path) -> Ratios | None:
    """Those of a run folder; None where the run hands none over, or damaged ones, which is said."""
    path = folder / DOMAIN_WEIGHTS / "ratios.csv"
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(int(r["step"]), int(r["layer"]), r["domain"], float(r["ratio"]))
                    for r in csv.DictReader(file)]  # fmt: skip
        steps = tuple(dict.fromkeys(step for step, *_ in rows))
        domains = tuple(dict.fromkeys(domain for _, _, domain, _ in rows))
        shape = len(steps), len({layer for _, layer, *_ in rows}), len(domains)
        values = np.array([row[3] for row in rows]).reshape(shape)
        if not rows or not np.isfinite(values).all():
            raise ValueError("no rows, or a ratio that is no number")
        best = ((read_record(folder).get("training") or {}).get("best") or {}).get("step")
        kept = steps.index(int(best)) if best is not None else len(steps) - 1
    except (OSError, KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        log.warning("%s: no ratios (%s)", path, error)
        return None
    return Ratios(steps, domains, values, kept)


def picture(ratios: Ratios) -> Figure:
    """States by domains at the weights that were kept, and each domain over time."""
    figure = Figure(figsize=size(ratios), layout="constrained")
    figure.colorbar(draw_ratios(ratios, *figure.subplots(1, 2)), ax=figure.axes[:1], label="ratio")
    return figure


def pixels(ratios: Ratios) -> np.ndarray:
    """The picture as ``(height, width, 4)``, bytes of red, green, blue and opacity."""
    figure = picture(ratios)
    figure.set_dpi(150)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def size(ratios: Ratios) -> tuple[float, float]:
    """Width and height of the picture in inches."""
    _, states, domains = ratios.values.shape
    return 6.5 + 0.4 * domains, 2.0 + 0.3 * states


def draw_ratios(ratios: Ratios, field: Axes, lines: Axes) -> AxesImage:
    """Draw both parts; gives the heat map for a bar of its colours.

    Args:
        ratios: What is shown.
        field: States by domains, of the validation whose weights were kept.
        lines: Each domain's mean over states at every validation, and 1/D.
    """
    grid, count = ratios.values[ratios.kept], len(ratios.domains)
    image = field.imshow(grid, cmap="cividis", vmin=0, aspect="auto", origin="lower")
    if grid.size <= _WRITTEN:
        for (i, j), value in np.ndenumerate(grid):
            colour = "w" if value < grid.max() / 2 else "k"  # cividis is dark at its lower end
            field.text(j, i, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=7)
    field.set_xticks(range(count), ratios.domains, rotation=45, ha="right", fontsize=8)
    field.set_yticks(range(len(grid)), ratios.states, fontsize=8)
    field.set_title(f"step {ratios.steps[ratios.kept]}", fontsize=9)
    for number, name in enumerate(ratios.domains):
        style = _DASHES[number // len(COLOURS) % len(_DASHES)]
        colour, values = COLOURS[number % len(COLOURS)], ratios.values[:, :, number].mean(1)
        lines.plot(ratios.steps, values, style, color=colour, marker=".", lw=1, label=name)
    lines.axhline(1 / count, color="0.6", lw=0.8)
    lines.set_xlabel("step")
    lines.set_ylabel("mean ratio over layers")
    if count <= _NAMED:
        lines.legend(frameon=False, fontsize=7)
    return image
