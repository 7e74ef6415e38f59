"""The table of a look at the pairs."""

from __future__ import annotations

from rich.table import Table

from mlkd.data.account import by_reason, direction_of, left, rejected
from mlkd.data.look import GroupLook, Look, SideLook

_COLUMNS = (
    *("corpus", "pair", "rows", "rejected", "unfinished", "duplicates", "left out", "left"),
    *("characters", "equal %", "other language %"),
)
CAPTION = (
    "characters: median (95 % have at most), source and translation; equal: both sides the same; "
    "other language: share of sentences that look like another one than their label (-: no telling)"
)


def to_table(look: Look) -> Table:
    """One row a corpus and language direction."""
    table = Table(*_COLUMNS, caption=CAPTION, caption_justify="left")
    for column in table.columns[2:]:
        column.justify = "right"
    for group in look.groups:
        table.add_row(*row_cells(look, group))
    return table


def row_cells(look: Look, group: GroupLook) -> list[str]:
    """A row of the table as text."""
    count = group.count
    bad, unfinished = rejected(count)
    dropped = dict(count["dropped"])
    duplicates = dropped.pop("duplicate", 0)
    row = [count["corpus"], direction_of(count), f"{count['rows']:,}"]
    for reasons in (bad, unfinished):
        total = f"{reasons.total():,}: " if len(reasons) > 1 else ""
        row.append(total + by_reason(look.config, reasons) or "0")
    others = ", ".join(f"{reason} {number:,}" for reason, number in dropped.items())
    row += [f"{duplicates:,}", others or "0", f"{left(count):,}"]
    if group.sides is None:
        return [*row, "-", "-", "-"]
    chars = " / ".join(f"{middle} ({long})" for middle, long in (s.chars for s in group.sides))
    otherwise = ", ".join(map(_otherwise, group.sides))
    return [*row, chars, f"{100 * group.equal:.1f}", otherwise]


def _otherwise(side: SideLook) -> str:
    """Share of another language, and which one it is mostly."""
    if side.otherwise is None:
        return f"{side.language} -"
    most = f" ({side.languages.most_common(1)[0][0]})" if side.languages else ""
    return f"{side.language} {100 * side.otherwise:.1f}{most}"
