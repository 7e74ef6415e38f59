"""The numbers of a benchmark as a table in the terminal."""

from __future__ import annotations

from rich.table import Table

from mlkd.bench.contest import TableLine

_COLUMNS = {
    "name": ("", "{}"),
    "pairs_per_s": ("pairs/s", "{:.1f}"),
    "sentences_per_s": ("sentences/s", "{:.1f}"),
    "ratio": ("× peer", "{:.2f}"),
    "equal_ratio": ("× peer, same precision", "{:.2f}"),
    "spinning_ratio": ("× spinning", "{:.2f}"),
    "tokens_per_s": ("tokens/s", "{:.0f}"),
    "padding": ("padding", "{:.1%}"),
    "gflops": ("GFLOP/s", "{:.0f}"),
    "matrix_share": ("of matrix products", "{:.0%}"),
    "first_step": ("seconds to first step", "{:.1f}"),
    "share": ("of the operations' time", "{:.0%}"),
    "seconds": ("seconds", "{:.1f}"),
    "between": ("between steps", "{:.1%}"),
    "peak_mib": ("peak MiB", "{:.0f}"),
    "anonymous_mib": ("of it not mapped files", "{:.0f}"),
}
"""Columns in order: head and format; a table has those that its lines have."""


def table_cells(lines: list[TableLine]) -> list[list[str]]:
    """Head and lines of a table."""
    keys = [key for key in _COLUMNS if any(key in line for line in lines)]
    head = [_COLUMNS[key][0] for key in keys]
    return [head] + [
        [_COLUMNS[key][1].format(line[key]) if key in line else "-" for key in keys]
        for line in lines
    ]


def terminal(title: str, lines: list[TableLine]) -> Table:
    """A table for the terminal."""
    head, *rows = table_cells(lines)
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table
