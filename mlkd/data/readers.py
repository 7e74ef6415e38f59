"""Parallel corpora as rows: one function a format.

A bad row becomes a :class:`Reject` and the reader goes on; a corpus that cannot be read at all is
a :class:`~mlkd.errors.UserError`.
"""

from __future__ import annotations

import gzip
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
    pass

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


def source_files(name: str, corpus: CorpusConfig, target: str, root: str | None) -> list[Path]:
    """Files that decide the rows of a translation language; none for ``demo`` and hub datasets.

    Raises:
        UserError: A file is missing.
    """
    if corpus.format == "demo":
        return []
    paths = [corpus.path] + ([corpus.target_path] if corpus.target_path else [])
    if corpus.format == "aligned" and len(paths) != 2:
        raise UserError(f"data.corpora.{name}: format aligned needs path and target_path")
    files: list[Path] = []
    for part in paths:
        path = Path(root or ".", _fill(part, corpus, target)).expanduser()
        if corpus.format == "gettext" and path.is_dir():
            found = sorted([*path.rglob("*.po"), *path.rglob("*.mo")])
            files += [f for f in found if target in (f.stem, *f.relative_to(path).parts)]
        elif corpus.format == "dataset":
            files += sorted(path.rglob("*.arrow")) if path.is_dir() else []
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(
                f"data.corpora.{name}: no file {path}; set data.root to the folder that holds it"
            )
    return files


def _fill(text: str, corpus: CorpusConfig, target: str) -> str:
    return text.replace("{source}", corpus.source).replace("{target}", target)


def _names(name: str, corpus: CorpusConfig, columns: list[str | int]) -> list[str]:
    if not all(isinstance(c, str) for c in columns):
        raise UserError(f"data.corpora.{name}.columns: {columns}; {corpus.format} needs names")
    return [str(c) for c in columns]


def _lines(path: Path) -> Iterator[tuple[int, str | Reject]]:
    """Lines with their numbers; a line that is too long or no text is a reject."""
    opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    try:
        with opened as file:
            for number in count(1):
                raw = file.readline(_MAX_LINE)
                if not raw:
                    return
                place, whole = f"{path}:{number}", raw.endswith(b"\n") or len(raw) < _MAX_LINE
                rest = raw
                while not whole:  # read past the end of the line in bounded pieces
                    rest = file.readline(_MAX_LINE)
                    whole = rest.endswith(b"\n") or len(rest) < _MAX_LINE
                if rest is not raw:
                    yield number, Reject("line too long", place, raw[:80])
                    continue
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError:
                    yield number, Reject("not UTF-8", place, raw[:200])
                    continue
                if _UNUSABLE.search(text):
                    yield number, Reject("NUL or lone surrogate", place, raw[:200])
                else:
                    yield number, text
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


_Item = tuple[str, str, str | None, str]
"""Source, translation, domain where the format has one, place."""


def _positions(
    name: str, columns: list[str | int], head: list[str] | None, path: Path
) -> list[int]:
    """Column positions; names are looked up in the header."""
    result = []
    for column in columns:
        if isinstance(column, int):
            result.append(column)
        elif head is None:
            raise UserError(f"data.corpora.{name}.columns: {column!r} needs header=true")
        elif column not in head:
            raise UserError(f"{path}: no column {column!r}; the header has {', '.join(head)}")
        else:
            result.append(head.index(column))
    return result


def _table(
    name: str, header: bool, columns: list[str | int], path: Path
) -> Iterator[tuple[str, list[str] | Reject]]:
    """Cells of the chosen columns of every line with their place."""
    positions: list[int] | None = None
    width = 0
    for number, line in _lines(path):
        if positions is None:
            head = line.split("\t") if header and isinstance(line, str) else None
            positions = _positions(name, columns, head, path)
            width = max(positions) + 1
            if header:
                continue
        place = f"{path}:{number}"
        if isinstance(line, Reject):
            yield place, line
            continue
        cells = line.split("\t")
        if len(cells) < width:
            yield place, Reject("wrong column count", place, line)
        else:
            yield place, [cells[p] for p in positions]


def _tsv(name: str, header: bool, columns: list[str | int], path: Path) -> Iterator[_Item | Reject]:
    for place, cells in _table(name, header, columns, path):
        yield cells if isinstance(cells, Reject) else (cells[0], cells[1], None, place)


def _aligned(
    name: str, header: bool, columns: list[str | int], first: Path, second: Path
) -> Iterator[_Item | Reject]:
    rows = zip_longest(_table(name, header, columns, first), _table(name, header, columns, second))
    for left, right in rows:
        if left is None or right is None:
            raise UserError(f"{first} and {second}: not the same number of lines")
        for side in (left[1], right[1]):
            if isinstance(side, Reject):
                yield side
                break
        else:
            for a, b in zip(left[1], right[1], strict=True):
                yield str(a), str(b), None, left[0]


def _jsonl(names: list[str], path: Path) -> Iterator[_Item | Reject]:
    for number, line in _lines(path):
        place = f"{path}:{number}"
        if isinstance(line, Reject):
            yield line
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            yield Reject("invalid JSON", place, line)
            continue
        yield _cells(record, names, place)


def _cells(record: Any, names: list[str], place: str) -> _Item | Reject:
    """Two texts of a record; a dotted name reaches into nested objects."""
    texts = []
    for name in names:
        value = record
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, str):
            return Reject("missing or not a text", place, str(record)[:200])
        if _UNUSABLE.search(value):
            return Reject("NUL or lone surrogate", place, repr(value)[:200])
        texts.append(value)
    return texts[0], texts[1], None, place


def _parquet(name: str, names: list[str], files: list[Path]) -> Iterator[_Item | Reject]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in files:
        try:
            file = pq.ParquetFile(path)
            tops = sorted({n.split(".")[0] for n in names})
            for missing in set(tops) - set(file.schema_arrow.names):
                raise UserError(
                    f"{path}: no column {missing!r}; it has {', '.join(file.schema_arrow.names)}"
                )
            number = 0
            for batch in file.iter_batches(_BATCH, columns=tops):
                for record in batch.to_pylist():
                    number += 1
                    yield _cells(record, names, f"{path}:{number}")
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path}: not a Parquet file ({error})") from None


def _dataset(
    name: str,
    corpus: CorpusConfig,
    target: str,
    root: str | None,
    names: list[str],
    allow_download: bool,
) -> Iterator[_Item | Reject]:
    import datasets

    folder = Path(root or ".", _fill(corpus.path, corpus, target)).expanduser()
    try:
        if folder.is_dir():
            data: Any = datasets.load_from_disk(str(folder))
            if isinstance(data, datasets.DatasetDict):
                data = data[corpus.split]
        else:
            mode = None if allow_download else datasets.DownloadConfig(local_files_only=True)
            data = datasets.load_dataset(
                corpus.path,
                f"{corpus.source}-{target}",
                split=corpus.split,
                revision=corpus.revision,
                download_config=mode,
            )
    except Exception as error:  # the library raises its own, pyarrow's and urllib's errors
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"data.corpora.{name}: no dataset folder {folder}, and {corpus.path} cannot be had "
            f"from the hub ({reason}); give data.root, or allow_download=true with a network"
        ) from None
    for number, record in enumerate(data, 1):
        yield _cells(record, names, f"{corpus.path}:{number}")


def _gettext(path: Path) -> Iterator[_Item | Reject]:
    import polib

    try:
        catalogue = polib.mofile(str(path)) if path.suffix == ".mo" else polib.pofile(str(path))
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a gettext catalogue ({error})") from None
    for entry in catalogue:
        place = f"{path}:{getattr(entry, 'linenum', 0)}"
        if getattr(entry, "obsolete", False) or getattr(entry, "fuzzy", False):
            reason = "obsolete" if entry.obsolete else "fuzzy"
            yield Reject(reason, place, entry.msgid)
        elif not entry.translated():
            yield Reject("untranslated", place, entry.msgid)
        elif entry.msgstr_plural:
            forms = [entry.msgstr_plural[k] for k in sorted(entry.msgstr_plural)]
            yield entry.msgid, forms[0], None, place
            yield entry.msgid_plural, forms[-1], None, place
        else:
            yield entry.msgid, entry.msgstr, None, place


def _demo(name: str, corpus: CorpusConfig, target: str) -> Iterator[_Item | Reject]:
    from mlkd.data.demo.grammar import LANGUAGES, sentences

    if target not in LANGUAGES:
        raise UserError(
            f"data.corpora.{name}.targets: the demo corpus has no {target}; "
            f"allowed: {', '.join(LANGUAGES)}"
        )
    for number, sentence in enumerate(sentences(), 1):
        yield (
            sentence.texts[corpus.source],
            sentence.texts[target],
            sentence.domain,
            f"demo:{number}",
        )
