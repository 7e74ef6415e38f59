"""Parallel corpora as rows: one function a format.

A bad row becomes a :class:`Reject` and the reader goes on; a corpus that cannot be read at all is
a :class:`~mlkd.errors.UserError`.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from itertools import chain, count, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlkd.errors import UserError
from mlkd.schema import CorpusConfig

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_LINE = 1 << 20
"""Longer lines (bytes) are rejected without being held in memory."""
_BATCH = 10_000
_UNUSABLE = re.compile("[\0\ud800-\udfff]")


class Row(NamedTuple):
    """One sentence pair as read."""

    source: str
    target: str
    source_lang: str
    target_lang: str
    domain: str
    corpus: str
    place: str
    """``file:number``."""


class Reject(NamedTuple):
    """A row that is no pair, and why."""

    reason: str
    place: str
    raw: str | bytes


UNFINISHED = ("fuzzy", "obsolete", "untranslated")
"""Reasons that are normal in a catalogue: counted, but not as bad rows."""


def read(
    name: str,
    corpus: CorpusConfig,
    target: str,
    root: str | None,
    *,
    allow_download: bool = False,
) -> Iterator[Row | Reject]:
    """Rows of one translation language of a corpus, in the order of its files.

    Args:
        name: Key of the corpus in ``data.corpora``.
        corpus: Where it is and what it looks like.
        target: Translation language, one of ``corpus.targets``.
        root: Folder that relative paths start from.
        allow_download: Whether a hub dataset may be downloaded.

    Raises:
        UserError: A file is missing, unreadable or has no such column.
    """
    files = source_files(name, corpus, target, root)
    columns = [_fill(c, corpus, target) if isinstance(c, str) else c for c in corpus.columns]
    wanted = "at least one" if corpus.format == "aligned" else "two"
    if not columns or (corpus.format != "aligned" and len(columns) != 2):
        raise UserError(f"data.corpora.{name}.columns: {columns}; give {wanted}")
    if corpus.format == "demo":
        pairs = _demo(name, corpus, target)
    elif corpus.format == "tsv":
        pairs = _tsv(name, corpus.header, columns, files[0])
    elif corpus.format == "aligned":
        pairs = _aligned(name, corpus.header, columns, files[0], files[1])
    elif corpus.format == "jsonl":
        pairs = _jsonl(_names(name, corpus, columns), files[0])
    elif corpus.format == "gettext":
        pairs = chain.from_iterable(map(_gettext, files))
    elif corpus.format == "parquet" or (files and files[0].suffix == ".parquet"):
        pairs = _parquet(name, _names(name, corpus, columns), files)
    else:
        pairs = _dataset(name, corpus, target, root, _names(name, corpus, columns), allow_download)
    languages = corpus.source, target
    for item in pairs:
        if isinstance(item, Reject):
            yield item
        else:
            source, translation, domain, place = item
            yield Row(source, translation, *languages, domain or corpus.domain, name, place)
