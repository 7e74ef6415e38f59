"""Reading of columnar corpora, Parquet files and datasets saved to disk, in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlkd.data.rows import Pair, Reject, checked
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of

_BATCH = 10_000


def table_pairs(name: str, columns: list[str], files: list[Path]) -> Iterator[Pair | Reject]:
    """Pairs of Parquet files, or of the one saved dataset that the files make up.

    Args:
        name: Key of the corpus in ``data.corpora``.
        columns: Names of the source and translation columns; dotted names reach into structs.
        files: As :func:`mlkd.data.sources.source_files` found them.

    Raises:
        UserError: A file is unreadable or has no such column.
    """
    parquet = files[0].suffix == ".parquet"
    for path in files if parquet else [files[0].parent]:
        number = count(1)
        try:
            for batch in _parquet(name, columns, path) if parquet else _saved(path):
                sides = [_values(batch, _path(name, batch.schema, c, path)) for c in columns]
                for source, target in zip(*sides, strict=True):
                    yield _pair(source, target, f"{path}:{next(number)}")
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None


def _parquet(name: str, columns: list[str], path: Path) -> Iterator[Any]:
    with pq.ParquetFile(path) as file:
        paths = [".".join(_path(name, file.schema_arrow, c, path)) for c in columns]
        yield from file.iter_batches(_BATCH, columns=paths)


def _saved(folder: Path) -> Iterator[Any]:
    from datasets import load_from_disk

    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [str(file["filename"]) for file in state["_data_files"]]
        outside = [n for n in names if not (folder / n).resolve().is_relative_to(folder.resolve())]
        if outside:
            raise ValueError(f"path {outside[0]!r} leaves the folder")
        dataset = load_from_disk(str(folder)).with_format("arrow")
    except Exception as error:  # whatever the library trips over in a damaged file
        raise UserError(f"{folder}: not a saved dataset ({reason_of(error)})") from None
    yield from dataset.iter(_BATCH)


def _path(name: str, schema: Any, column: str, file: Path) -> list[str]:
    """Names from the top column down to the text."""
    if column in schema.names:
        return [column]
    path = column.split(".")
    fields = {field.name: field.type for field in schema}
    for part in path:
        if part not in fields:
            raise UserError(
                f"data.corpora.{name}.columns: no {column!r} in {file}; it has "
                f"{', '.join(schema.names)}"
            )
        kind = fields[part]
        fields = {f.name: f.type for f in kind} if pa.types.is_struct(kind) else {}
    return path


def _values(batch: Any, path: list[str]) -> list[Any]:
    """Values of a column; text comes as bytes, because nobody has checked that it is UTF-8."""
    array = batch.column(path[0])
    for part in path[1:]:
        array = pc.struct_field(array, part)
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = array.cast(pa.large_binary())
    values: list[Any] = array.to_pylist()
    return values


def _pair(source: Any, target: Any, place: str) -> Pair | Reject:
    try:
        sides = [side.decode() if isinstance(side, bytes) else side for side in (source, target)]
    except UnicodeDecodeError:
        return Reject("not UTF-8", place, repr((source, target)))
    return checked(sides[0], sides[1], place)
