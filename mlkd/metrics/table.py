"""Models beside each other: sizes and mean scores, then scores by set and language pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlkd.metrics.scoring import HEADLINE, Scores, share_of
from mlkd.metrics.summary import columns, numbers, pair_scores


@dataclass(frozen=True)
class TableRow:
    """One model of a table.

    Attributes:
        name: What the reader knows the model by.
        parameters: Stored parameters.
        mib: MiB on disk.
        scores: What ``scoring.score`` returned.
        share: Share of the assistant's mean test STS that is kept, in %.
        sentences_per_s: Sentences encoded a second.
        latency_ms: Median milliseconds of one sentence.
    """

    name: str
    parameters: int
    mib: float
    scores: Scores
    share: float | None = None
    sentences_per_s: float | None = None
    latency_ms: float | None = None


def row_of(name: str, measured: dict[str, Any], share: float | None = None) -> TableRow:
    """The line of a measured model; its times may be missing."""
    known = numbers(measured, share)
    return TableRow(
        name,
        parameters=measured["parameters"]["total"],
        mib=measured["mib"],
        scores=measured["scores"],
        share=share,
        sentences_per_s=known.get("sentences_per_s"),
        latency_ms=known.get("latency_ms"),
    )


def rows_of(models: Mapping[str, dict[str, Any]]) -> list[TableRow]:
    """The lines of measured models, with what they keep of ``assistant`` if it is among them."""
    assistant = models.get("assistant")
    return [
        row_of(
            name,
            measured,
            share_of(assistant["scores"], measured["scores"])["share"] if assistant else None,
        )
        for name, measured in models.items()
    ]


def records_of(models: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The same for a CSV file: ``model``, then its numbers and its scores by language pair."""
    return [
        {"model": row.name} | numbers(models[row.name], row.share) | columns(models[row.name])
        for row in rows_of(models)
    ]


Grid = list[list[str]]
"""Cells by line; the first line is the head."""
_NAMES = {"sts": "STS", "bitext": "bitext", "classification": "class."}
"""What a head calls a kind of sets."""


def rows_to_table(rows: Sequence[TableRow]) -> Table:
    """Two tables below each other: one line a model, then one column a model.

    Scores are ×100: Spearman of the cosine for STS, mean accuracy of both directions for bitext.
    ``cos T`` is the mean cosine with the teacher's vectors of the source side of dev bitext.
    """
    both = Table.grid(padding=(0, 0, 1, 0))
    for grid, labels in ((_overview(rows), 1), (_by_pair(rows), 3)):
        both.add_row(_table(grid, labels))
    return both


def kinds_to_table(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    """A line for each kind of vectors of each encoder, with mean scores.

    Args:
        measured: By encoder what :func:`mlkd.metrics.shorter.score_kinds` found.
    """
    return _table(kinds_grid(measured), 2)


def kinds_grid(measured: Mapping[str, Mapping[str, Any]], label: str = "encoder") -> Grid:
    """The same as cells; columns of scores that no encoder has are left out."""
    every = [found["scores"]["mean"] for kinds in measured.values() for found in kinds.values()]
    means = [
        (split, kind)
        for split in ("dev", "test")
        for kind in ("sts", "bitext")
        if any(mean[split].get(kind) is not None for mean in every)
    ]
    grid = [[label, "vectors", "bytes", *(f"{split} {_NAMES[kind]}" for split, kind in means)]]
    for name, kinds in measured.items():
        for kind, found in kinds.items():
            scores = [_number(found["scores"]["mean"][split].get(k)) for split, k in means]
            grid.append([name, kind, str(found["bytes"]), *scores])
    return grid


def sides_to_table(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    """A line for each language pair and encoder of documents.

    Args:
        measured: By encoder of documents what :func:`mlkd.metrics.sides.score_sides` found.
    """
    return _table(sides_grid(measured), 4)


def sides_grid(measured: Mapping[str, Mapping[str, Any]]) -> Grid:
    """The same as cells; of bitext how often a query finds its document, and the other way."""
    heads = ("student alone", "student asks", "documents' alone")
    grid = [["documents", "split", "set", "pair", *heads]]
    for name, sides in measured.items():
        for set_name, entry in sides["both"]["sets"].items():
            for pair in entry["pairs"]:
                cells = []
                for side in ("queries", "both", "documents"):
                    found = sides[side]["sets"][set_name]["pairs"][pair]
                    ways = ["spearman"] if entry["kind"] == "sts" else ["forward", "backward"]
                    cells.append(" / ".join(_number(found[way]) for way in ways))
                grid.append([name, entry["split"], set_name, pair, *cells])
    return grid


def _table(grid: Grid, labels: int) -> Table:
    """Cells as a table whose first columns are words."""
    table = Table()
    for number, head in enumerate(grid[0]):
        # Text, not str: a name with brackets is not markup.
        table.add_column(Text(head), justify="left" if number < labels else "right")
    for line in grid[1:]:
        table.add_row(*map(Text, line))
    return table


def print_table(rows: Sequence[TableRow]) -> None:
    """Print ``rows_to_table``."""
    Console(width=120).print(rows_to_table(rows))


def to_markdown(rows: Sequence[TableRow]) -> str:
    """The two tables of ``rows_to_table`` in GitHub's Markdown."""
    return grid_to_markdown(_overview(rows), 1) + "\n" + grid_to_markdown(_by_pair(rows), 3)


def _overview(rows: Sequence[TableRow]) -> Grid:
    means = [
        (split, kind)
        for split in ("dev", "test")
        for kind in HEADLINE
        if kind in ("sts", "bitext") or any(kind in row.scores["mean"][split] for row in rows)
    ]
    grid = [
        ["model", "par. M", "MiB"]
        + [f"{split} {_NAMES[kind]}" for split, kind in means]
        + ["kept %", "cos T", "sent/s", "ms"]
    ]
    for row in rows:
        grid.append(
            [row.name, _number(row.parameters / 1e6), _number(row.mib, 1)]
            + [_number(row.scores["mean"][split].get(kind)) for split, kind in means]
            + [_number(row.share, 1), _number(row.scores["agreement"], 3)]
            + [_number(row.sentences_per_s, 0), _number(row.latency_ms, 1)]
        )
    return grid


def _by_pair(rows: Sequence[TableRow]) -> Grid:
    values = [pair_scores({"scores": row.scores}) for row in rows]
    # Dev before test; inside a split the order of the configuration.
    lines = sorted(dict.fromkeys(key for found in values for key in found), key=lambda key: key[0])
    head = ["split", "set", "pair", *(row.name for row in rows)]
    return [head] + [[*key, *(_number(found.get(key)) for found in values)] for key in lines]


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def grid_to_markdown(grid: Grid, labels: int) -> str:
    """Cells in GitHub's Markdown; the first columns are words."""
    rule = [":--" if number < labels else "--:" for number in range(len(grid[0]))]
    lines = [grid[0], rule, *grid[1:]]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )
