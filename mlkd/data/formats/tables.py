"""Reading of columnar corpora, Parquet files and datasets saved to disk, in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlkd.data.formats.base import Wanted
from mlkd.data.rows import Pair, Reject, checked_pair, in_domain
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of

_BATCH = 10_000


def table_pairs(wanted: Wanted, columns: list[str], files: list[Path]) -> Iterator[Pair | Reject]:
    """Pairs of Parquet files, or of the one saved dataset that the files make up.

    Args:
        wanted: The corpus, which may have a column of domains.
        columns: Names of the source and translation columns, and that of the domain if there is
            one; dotted names reach into structs.
        files: As :func:`mlkd.data.sources.source_files` found them.

    Raises:
        UserError: A file is unreadable or has no such column.
    """
    parquet = wanted.corpus.format == "parquet" or files[0].suffix == ".parquet"
    for path in files if parquet else [files[0].parent]:
        number = count(1)
        try:
            for batch in _parquet(wanted, columns, path) if parquet else _saved(path):
                parts = [_values(batch, _path(wanted, batch.schema, c, path)) for c in columns]
                for row in zip(*parts, strict=True):
                    yield _pair(row, f"{path}:{next(number)}")
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None


def _parquet(wanted: Wanted, columns: list[str], path: Path) -> Iterator[Any]:
    with pq.ParquetFile(path) as file:
        paths = [".".join(_path(wanted, file.schema_arrow, c, path)) for c in columns]
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


def _path(wanted: Wanted, schema: Any, column: str, file: Path) -> list[str]:
    """Names from the top column down to the text."""
    if column in schema.names:
        return [column]
    path = column.split(".")
    fields = {field.name: field.type for field in schema}
    for part in path:
        if part not in fields:
            key = ".domain_column" if column == wanted.corpus.domain_column else ".columns"
            raise wanted.refuse(f"no {column!r} in {file}; it has {', '.join(schema.names)}", key)
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


def _pair(row: Sequence[Any], place: str) -> Pair | Reject:
    try:
        source, target, *domain = (x.decode() if isinstance(x, bytes) else x for x in row)
    except UnicodeDecodeError:
        return Reject("not UTF-8", place, repr(row))
    return in_domain(checked_pair(source, target, place), *domain)
