"""Parallel corpora as rows, whatever their format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlkd.config.inputs import CorpusConfig
from mlkd.data.formats import module_of
from mlkd.data.formats.base import Wanted
from mlkd.data.rows import Reject, Row


def read(name: str, corpus: CorpusConfig, target: str, files: list[Path]) -> Iterator[Row | Reject]:
    """Rows of one translation language of a corpus, in the order of its files.

    A bad row becomes a :class:`~mlkd.data.rows.Reject`, and reading goes on.

    Args:
        name: Key of the corpus in ``data.corpora``.
        corpus: Its format.
        target: Translation language, one of ``corpus.targets``.
        files: As :func:`mlkd.data.sources.source_files` found them.

    Raises:
        UserError: A file is unreadable, has no such column, or is in other languages.
    """
    wanted = Wanted(name, corpus, target)
    label, is_empty = corpus.label(target), corpus.domain_column is not None
    for item in module_of(corpus.format).read(wanted, files):
        if isinstance(item, Reject):
            yield item
        else:
            source, translation, place, domain = item
            is_empty = is_empty and domain is None
            yield Row(source, translation, wanted.source, target, domain or label, name, place)
    if is_empty:
        raise wanted.no_domain()
