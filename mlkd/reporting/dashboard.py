"""The comparison as a W&B report, defined in code with ``wandb-workspaces``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces import expr

from mlkd.metrics.summary import pair_scores
from mlkd.output.errors import UserError
from mlkd.output.secrets import redact
from mlkd.reporting.collect import ReportCell
from mlkd.runs.record import link_of
from mlkd.storage.files import reason_of, write_json
from mlkd.training.wandb_logger import may_send

_CIVIDIS = ("#00224e", "#575d6d", "#a59c74", "#fee838")
"""Told apart by colour-blind people, and in grey."""


def publish(cells: Sequence[ReportCell], folder: Path, entity: str | None) -> str:
    """Create the view where an API key is set and W&B is not offline; else write its definition.

    Args:
        cells: Cells of the sweeps to show; project, groups and last stage come from their records.
        folder: Where the definition goes.
        entity: Owner of the project; None = the default one of the key.

    Returns:
        The address of the view, or the path of its definition.
    """
    if may_send():
        report = define(cells, entity)
        try:
            return str(report.save().url)
        except Exception as error:  # wandb's own, requests' and timeouts
            reason = redact(reason_of(error))
            raise UserError(f"W&B does not take the view ({reason}); WANDB_MODE=offline "
                            "writes its definition instead") from None  # fmt: skip
    spec = define(cells, entity or "")._to_model().spec
    path = folder / "dashboard.json"
    write_json(path, json.loads(spec.model_dump_json(by_alias=True, exclude_none=True)))
    return str(path)


def define(cells: Sequence[ReportCell], entity: str | None) -> wr.Report:
    """The view: front, heat map, parallel coordinates, losses by stage, scores by language.

    Raises:
        UserError: The cells are in several W&B projects, or nothing is known of them.
    """
    known = [cell for cell in cells if cell.config]
    projects = {cell.config["logger"]["project"] for cell in known}
    if len(projects) != 1:
        named = ", ".join(sorted(projects)) or "none"
        raise UserError(f"a view shows one W&B project; the sources have: {named}")
    (project,) = projects
    groups = sorted({g for cell in known if (g := cell.config["logger"]["group"])})
    last = known[-1].config["stage"]
    stages = list(dict.fromkeys(link_of(link) for c in known for link in c.links))
    pairs = dict.fromkeys("/".join(("pair", *k)) for c in known for k in pair_scores(c.measured))
    owner: dict[str, str] = {} if entity is None else {"entity": entity}

    def runs(stage: str) -> wr.Runset:
        filters = [expr.Metric("JobType") == stage]
        if groups:
            filters.append(expr.Metric("Group").isin(groups))
        return wr.Runset(project=project, name=stage, filters=expr.And(*filters), **owner)

    def grid(stage: str, *panels: Any) -> wr.PanelGrid:
        return wr.PanelGrid(runsets=[runs(stage)], panels=list(panels))

    blocks: list[Any] = [
        wr.H2("Size and quality"),
        grid(last, _front("mib"), _front("latency_ms"), _heat_map()),
        wr.H2("Settings and results"),
        grid(last, _parallel()),
        wr.H2("Languages"),
        grid(last, *_languages(list(pairs))),
    ]
    for stage in stages:
        blocks += [wr.H2(f"Stage {stage}"), grid(stage, *_losses())]
    title = f"Comparison of {', '.join(groups) or project}"[:128]
    return wr.Report(project=project, title=title, blocks=blocks, width="fluid", **owner)


def _front(cost: str) -> wr.ScatterPlot:
    return wr.ScatterPlot(
        title=f"test STS against {cost}",
        x=wr.SummaryMetric(f"result/{cost}"),
        y=wr.SummaryMetric("result/test_sts"),
        running_ymax=True,  # the best so far, from small to large: the front
        layout=wr.Layout(w=8, h=8),
    )


def _heat_map() -> wr.ScatterPlot:
    """W&B has no heat map of runs; points coloured by their score on a grid are one."""
    step = 100 / (len(_CIVIDIS) - 1)
    return wr.ScatterPlot(
        title="bottleneck × recurrence (colour: test STS)",
        x=wr.Config("student/recurrence"),
        y=wr.Config("student/bottleneck"),
        z=wr.SummaryMetric("result/test_sts"),
        gradient=[wr.GradientPoint(c, round(i * step, 1)) for i, c in enumerate(_CIVIDIS)],
        layout=wr.Layout(w=8, h=8),
    )


def _parallel() -> wr.ParallelCoordinatesPlot:
    settings = (
        "student/bottleneck",
        "student/layers",
        "student/intermediate",
        "student/recurrence",
        "init/source",
        "seed",
    )
    results = ("mib", "latency_ms", "kept", "test_sts")
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(name)) for name in settings]
    columns += [wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(f"result/{n}")) for n in results]
    return wr.ParallelCoordinatesPlot(columns=columns, layout=wr.Layout(w=24, h=10))


def _languages(names: Sequence[str]) -> list[wr.BarPlot]:
    return [
        wr.BarPlot(
            title=name.removeprefix("pair/"),
            metrics=[wr.SummaryMetric(name)],
            layout=wr.Layout(w=8, h=6),
        )
        for name in names
    ]


def _losses() -> list[wr.LinePlot]:
    shown = {
        "dev loss": r"^dev/(?!accuracy|cosine|rank)",
        "training loss": r"^train/(?!lr|gradient_norm)",
        "dev accuracy": "^dev/accuracy$",
        "spread of the dev vectors": r"^dev/(cosine|rank)$",
        "learning rate": "^train/lr$",
        "pairs a second": "^speed/pairs_per_s$",
    }
    return [
        wr.LinePlot(
            title=title,
            x="trainer/global_step",
            metric_regex=pattern,
            layout=wr.Layout(w=8, h=6),
        )
        for title, pattern in shown.items()
    ]
