"""Parallel corpora as rows: one function a format.

A bad row becomes a :class:`Reject` and the reader goes on; a corpus that cannot be read at all is
a :class:`~mlkd.output.errors.UserError`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from mlkd.config.inputs import CorpusConfig
from mlkd.data.rows import Pair, Reject, Row, checked, lines
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of

if TYPE_CHECKING:
    from mlkd.data.demo.grammar import DemoSentence


def read(name: str, corpus: CorpusConfig, target: str, files: list[Path]) -> Iterator[Row | Reject]:
    """Rows of one translation language of a corpus, in the order of its files.

    Args:
        name: Key of the corpus in ``data.corpora``.
        corpus: Its format.
        target: Translation language, one of ``corpus.targets``.
        files: As :func:`mlkd.data.sources.source_files` found them.

    Raises:
        UserError: A file is unreadable or has no such column.
    """
    for item in _pairs(name, corpus, target, files):
        if isinstance(item, Reject):
            yield item
        else:
            source, translation, place, domain = item
            yield Row(
                source, translation, corpus.source, target, domain or corpus.domain, name, place
            )


def _pairs(
    name: str, corpus: CorpusConfig, target: str, files: list[Path]
) -> Iterator[Pair | Reject]:
    columns = text_columns(corpus, target, files)
    if corpus.format == "demo":
        return _demo(name, corpus.source, target)
    if corpus.format == "gettext":
        return _gettext(files)
    if corpus.format == "aligned":
        return _aligned(name, corpus.header, columns, files[0], files[1])
    if len(columns) != 2:
        raise UserError(f"data.corpora.{name}.columns: {columns}; give two, source and translation")
    if corpus.format == "tsv":
        return _tsv(name, corpus.header, columns, files[0])
    names = [column for column in columns if isinstance(column, str)]
    if len(names) != 2:
        raise UserError(
            f"data.corpora.{name}.columns: {columns}; format {corpus.format} needs two names"
        )
    if corpus.format == "jsonl":
        return _jsonl(names, files[0])
    from mlkd.data.tables import table_pairs  # pyarrow costs time that few corpora need

    return table_pairs(name, names, files)


def text_columns(corpus: CorpusConfig, target: str, files: list[Path]) -> list[str | int]:
    """The columns that are read: those of the configuration, or the first ones."""
    if corpus.columns is not None:
        return [corpus.fill(c, target) if isinstance(c, str) else c for c in corpus.columns]
    if corpus.format == "aligned":
        _, first = next(lines(files[0]), ("", ""))
        if isinstance(first, str) and "\t" not in first:  # plain text, as Moses has it
            return [0]
    return [0, 1]


def _cells(
    name: str, header: bool, columns: list[str | int], path: Path
) -> Iterator[tuple[str, list[str] | Reject]]:
    """The chosen cells of each data line of a TSV file; the first good line sets the width."""
    rows = lines(path)
    first = next(rows, (str(path), "")) if header else (str(path), "")
    names = first[1].split("\t") if header and isinstance(first[1], str) else []
    positions = [names.index(c) if c in names else c for c in columns]
    wrong = [c for c in positions if isinstance(c, str) or not 0 <= c < (len(names) or 1 << 16)]
    if wrong:
        allowed = ", ".join(names) if header else "positions from 0, or names with header=true"
        raise UserError(f"data.corpora.{name}.columns: no {wrong[0]!r} in {path}; it has {allowed}")
    chosen = [c for c in positions if isinstance(c, int)]
    least, width = max(chosen) + 1, len(names)
    for place, line in rows:
        if isinstance(line, Reject):
            yield place, line
            continue
        cells = line.split("\t")
        if not width and len(cells) >= least:
            width = len(cells)
        if len(cells) == width:
            yield place, [cells[c] for c in chosen]
        else:
            yield place, Reject("wrong column count", place, line)


def _tsv(name: str, header: bool, columns: list[str | int], path: Path) -> Iterator[Pair | Reject]:
    for place, cells in _cells(name, header, columns, path):
        yield cells if isinstance(cells, Reject) else Pair(cells[0], cells[1], place)


def _aligned(
    name: str, header: bool, columns: list[str | int], path: Path, target_path: Path
) -> Iterator[Pair | Reject]:
    if not columns:
        raise UserError(f"data.corpora.{name}.columns: empty; give the text columns of both files")
    sides = _cells(name, header, columns, path), _cells(name, header, columns, target_path)
    for number, (left, right) in enumerate(zip_longest(*sides)):
        if left is None or right is None:
            rest = 1 + sum(1 for _ in sides[left is None])
            counts = (number, number + rest) if left is None else (number + rest, number)
            raise UserError(
                f"data.corpora.{name}: {path} has {counts[0]} rows, {target_path} {counts[1]}; "
                "row i must be the same item in both"
            )
        bad = [cells for _, cells in (left, right) if isinstance(cells, Reject)]
        if bad:
            yield bad[0]
            continue
        for source, translation in zip(left[1], right[1], strict=True):
            yield Pair(source, translation, left[0])


def _jsonl(columns: list[str], path: Path) -> Iterator[Pair | Reject]:
    for place, line in lines(path):
        if isinstance(line, Reject):
            yield line
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Reject("invalid JSON", place, line)
            continue
        found = [_look_up(value, column) for column in columns]
        item = checked(found[0], found[1], place)
        yield item._replace(raw=line) if isinstance(item, Reject) else item


def _look_up(value: object, column: str) -> object:
    """The value under a name, or under the names of a dotted path."""
    if isinstance(value, dict) and column in value:
        return value[column]
    for name in column.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _gettext(files: list[Path]) -> Iterator[Pair | Reject]:
    import polib

    for path in files:
        try:
            load = polib.mofile if path.suffix == ".mo" else polib.pofile
            catalogue = load(str(path))
        except (OSError, ValueError, struct.error) as error:
            raise UserError(f"{path}: not a readable catalogue ({reason_of(error)})") from None
        for number, entry in enumerate(catalogue, 1):
            place = f"{path}:{getattr(entry, 'linenum', None) or number}"
            forms = [entry.msgstr_plural[form] for form in sorted(entry.msgstr_plural)]
            forms = forms or [entry.msgstr]
            if entry.obsolete:
                yield Reject("obsolete", place, entry.msgid)
            elif "fuzzy" in entry.flags:
                yield Reject("fuzzy", place, entry.msgid)
            elif not all(forms):
                yield Reject("untranslated", place, entry.msgid)
            else:
                yield checked(entry.msgid, forms[0], place)
                if entry.msgid_plural:
                    yield checked(entry.msgid_plural, forms[-1], place)


def _demo(name: str, source: str, target: str) -> Iterator[Pair | Reject]:
    from mlkd.data.demo.grammar import LANGUAGES

    for language in (source, target):
        if language not in LANGUAGES:
            raise UserError(
                f"data.corpora.{name}: the demo corpus has no {language}; it has "
                f"{', '.join(LANGUAGES)}"
            )
    for number, sentence in enumerate(_demo_sentences(), 1):
        place = f"demo:{number}"
        yield Pair(sentence.texts[source], sentence.texts[target], place, sentence.domain)


@cache
def _demo_sentences() -> tuple[DemoSentence, ...]:
    """Made once for all languages: the grammar takes a second."""
    from mlkd.data.demo.grammar import sentences

    return tuple(sentences())
