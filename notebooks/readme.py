"""Tables of the README and of the results: between two marks each, written by the notebook."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

PAGES = (Path(__file__).parent.parent / "README.md", Path(__file__).parent / "README.md")


def numbers(table: pd.DataFrame, formats: dict[str, tuple[str, str]]) -> pd.DataFrame:
    """Columns as text, by ``{column: (head, format)}``; empty where there is no number."""
    return pd.DataFrame(
        {
            head: [form.format(value) if pd.notna(value) else "" for value in table[column]]
            for column, (head, form) in formats.items()
        },
        index=table.index,
    )


def spread(values: pd.Series, form: str = "{:.2f}") -> str:
    """Mean and sample standard deviation; the number alone if there is one."""
    mean = form.format(values.mean())
    return f"{mean} ± {form.format(values.std())}" if len(values) > 1 else mean


def publish(name: str, frame: pd.DataFrame, records: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Replace a table of a page; below it seeds, days and hardware of its records.

    Args:
        name: What its marks call it.
        frame: Text; each level of the index is a column as well.
        records: Tables with ``seed``, ``finished`` and ``hardware``.

    Returns:
        ``frame``, to be shown.
    """
    shown = frame.reset_index()
    labels = frame.index.nlevels
    lines = [list(map(str, shown.columns)), [":--"] * labels + ["--:"] * len(frame.columns)]
    lines += shown.astype(str).to_numpy().tolist()
    table = "\n".join(
        "|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines
    )
    table += f"\n\n{_origin(pd.concat(records))}\n\n"
    for page in PAGES:
        head, mark, rest = page.read_text(encoding="utf-8").partition(f"<!-- table: {name} -->\n")
        _, end, tail = rest.partition("<!-- end -->")
        if end:
            page.write_text(f"{head}{mark}\n{table}{end}{tail}", encoding="utf-8")
            return frame
    raise ValueError(f"no page has marks for the table {name}")


def _origin(cells: pd.DataFrame) -> str:
    """When and where the numbers of a table were made, and of which seeds they are."""
    days = cells["finished"].dropna().str[:10]
    day = " to ".join(dict.fromkeys((days.min(), days.max())))
    seeds = ", ".join(map(str, sorted(cells["seed"].unique())))
    hardware = "; ".join(sorted(cells["hardware"].dropna().unique()))
    return f"<sub>Seeds {seeds}; {day}; {hardware}.</sub>".replace("Seeds 0;", "Seed 0;")
