"""Files of evaluation sets: their lines, the embedded ones, gold scores."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlkd.config.evaluation import EvalSetConfig
from mlkd.data.demo import LANGUAGES
from mlkd.data.rows import table_rows
from mlkd.output.errors import UserError

_MOST = 256 << 20
"""Of an evaluation set, unpacked."""

SetTable = tuple[Path, dict[int, list[str]]]
"""A file and its cells by line number, counted from 1: two sentences, and the score of STS; or a
text and its label."""


def read_demo(key: str, config: EvalSetConfig, a: str, b: str) -> SetTable:
    """The embedded sets: ``sts.tsv`` has a column ``split``, ``heldout.tsv`` is a test set."""
    sts = config.kind == "sts"
    if not sts and config.split == "dev":
        raise UserError(f"{key}.split=dev: the demo bitext is held out; only test is allowed")
    path = Path(str(files("mlkd.data.demo") / ("sts.tsv" if sts else "heldout.tsv")))
    (_, names), *rest = set_lines(key, path)
    columns = [f"{a}1", f"{b}2", "score"] if sts else [a, b]
    if missing := [column.rstrip("12") for column in columns if column not in names]:
        known = ", ".join(LANGUAGES)
        raise UserError(f"{key}: the demo has no language {missing[0]}, only {known}")
    rows = {number: dict(zip(names, cells, strict=True)) for number, cells in rest}
    return path, {
        number: [row[column] for column in columns]
        for number, row in rows.items()
        if not sts or row["split"] == config.split
    }


def read_requests(key: str, config: EvalSetConfig, language: str) -> SetTable:
    """The embedded requests: columns ``split``, ``label`` and the languages."""
    path = Path(str(files("mlkd.data.demo") / "requests.tsv"))
    (_, names), *rest = set_lines(key, path)
    if language not in names[2:]:
        raise UserError(f"{key}: the demo has requests in {', '.join(names[2:])}")
    column = names.index(language)
    return path, {n: [row[column], row[1]] for n, row in rest if row[0] == config.split}


def set_lines(key: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers from 1 and stripped cells of a TSV, packed or not."""
    if not path.is_file():
        raise UserError(f"{path}: no such file ({key}.path, under eval.root)")
    size = 0
    for number, (_, cells) in enumerate(table_rows(path), start=1):
        if (size := size + sum(map(len, cells))) > _MOST:
            raise UserError(f"{path}: larger than {_MOST >> 20} MiB; no evaluation set")
        yield number, [cell.strip() for cell in cells]


def gold_scores(
    path: Path, rows: dict[int, list[str]], config: EvalSetConfig
) -> NDArray[np.float64]:
    """(N,) gold scores, the last cell of each row."""
    most = config.max_score
    gold = np.empty(len(rows))
    for index, (number, row) in enumerate(rows.items()):
        try:
            gold[index] = float(row[2])
        except ValueError:
            raise UserError(f"{path}:{number}: score {row[2]!r} is not a number") from None
        if not 0 <= gold[index] <= most:
            raise UserError(f"{path}:{number}: score {row[2]} is not within 0 and {most:g}")
    if (gold == gold[0]).all():
        rows_of = f" of {config.where}" if config.where else ""
        what = f"every score{rows_of} is {gold[0]:g}"
        raise UserError(f"{path}: {what}; a rank correlation needs others")
    return gold
