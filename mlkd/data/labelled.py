"""Labelled text as rows: a text is both sides of its row, a label or score its value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from mlkd.config.inputs import CorpusConfig
from mlkd.config.labelled import LabelledConfig
from mlkd.config.paths import user_path
from mlkd.data.formats import module_of
from mlkd.data.formats.base import Wanted
from mlkd.data.rows import Reject, Row, checked_pair, domain_of, table_rows
from mlkd.output.errors import UserError

DEMO = Path(str(files("mlkd.data.demo") / "requests.tsv"))
"""The embedded requests: split, label, and a column a language."""


def labelled_files(name: str, corpus: LabelledConfig, root: str | None) -> dict[str, Path]:
    """The files of a labelled corpus by split, ``dev`` first if it has one of its own.

    Raises:
        UserError: One is missing.
    """
    if corpus.format == "demo":
        return {"dev": DEMO, "train": DEMO}
    found = {}
    for split, key in (("dev", "dev_path"), ("train", "path")):
        if (template := getattr(corpus, key)) is None:
            continue
        path = Path(root or "") / user_path(template.replace("{language}", corpus.language))
        if not path.is_file():
            raise UserError(
                f"data.labelled.{name}: no {path}; set data.root or data.labelled.{name}.{key}"
            )
        found[split] = path
    return found


def read_labelled(
    name: str, corpus: LabelledConfig, split: str, path: Path
) -> Iterator[Row | Reject]:
    """Rows of one file of a labelled corpus; a bad row becomes a reject, and reading goes on.

    Args:
        name: Key of the corpus in ``data.labelled``.
        corpus: Its format.
        split: ``train`` or ``dev``.
        path: As :func:`labelled_files` found it.

    Raises:
        UserError: The file is unreadable or has no such column.
    """
    label, is_empty = corpus.label, corpus.domain_column is not None
    held_out = True if split == "dev" else None if _splits_by_hash(corpus) else False
    language = corpus.language
    for place, found in _cells(name, corpus, split, path):
        if isinstance(found, Reject):
            yield found
            continue
        domain = domain_of(found.pop()) if corpus.domain_column is not None else None
        is_empty = is_empty and domain is None
        *texts, given = found
        pair = checked_pair(texts[0], texts[-1], place)
        value = _value(corpus, given)
        if isinstance(pair, Reject):
            yield pair
        elif isinstance(value, str):
            yield Reject(value, place, repr((*texts, given)))
        else:
            sides = pair.source, pair.target
            yield Row(*sides, language, language, domain or label, name, place, value, held_out)
    if is_empty:
        raise _wanted(name, corpus).no_domain()


def _splits_by_hash(corpus: LabelledConfig) -> bool:
    return corpus.format != "demo" and corpus.dev_path is None


def _value(corpus: LabelledConfig, given: object) -> float | str:
    """What a row teaches, or why it teaches nothing."""
    known = isinstance(given, str | int | float) and not isinstance(given, bool)
    written = str(given).strip() if known else ""
    if not written:
        return "no label" if corpus.kind == "classification" else "no score"
    if corpus.kind == "classification":
        return float(corpus.labels.index(written)) if written in corpus.labels else "unknown label"
    least, largest = corpus.scores
    try:
        score = float(written)
    except ValueError:
        score = math.nan
    if not least <= score <= largest:
        return "score out of range"
    return (score - least) / (largest - least)


def _cells(
    name: str, corpus: LabelledConfig, split: str, path: Path
) -> Iterator[tuple[str, list[object] | Reject]]:
    """Texts, value and, where a column says it, domain of each row, as the file has them."""
    if corpus.format == "demo":
        yield from _demo(name, corpus, split)
        return
    columns = corpus.columns or [*range(corpus.width)]
    yield from module_of(corpus.format).rows(_wanted(name, corpus), columns, [path])


def _wanted(name: str, corpus: LabelledConfig) -> Wanted:
    shown = {"format", "columns", "domain_column", "header", "delimiter"}
    read = CorpusConfig(
        **corpus.model_dump(include=shown, exclude_defaults=True),
        source=corpus.language,
        targets=[corpus.language],
    )
    return Wanted(name, read, corpus.language, "data.labelled")


def _demo(
    name: str, corpus: LabelledConfig, split: str
) -> Iterator[tuple[str, list[object] | Reject]]:
    head, *rows = [cells for _, cells in table_rows(DEMO)]
    languages = head[2:]
    if corpus.language not in languages or corpus.kind != "classification":
        raise UserError(
            f"data.labelled.{name}: the demo has classifications in {', '.join(languages)}"
        )
    for number, row in enumerate(rows, 1):
        if row[0] == split:
            yield f"demo:{number}", [row[head.index(corpus.language)], row[1]]
