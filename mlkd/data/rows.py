"""Rows, rejected rows, and the lines of text files that they come from."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import re
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import IO, NamedTuple, cast

from mlkd.config.paths import PACKED
from mlkd.data.sniff import START, refuse_misnamed, refuse_packed, refuse_wide
from mlkd.output.errors import UserError

_MAX_LINE = 1 << 20
"""Longer lines (bytes) are rejected without being held in memory."""
MAX_SKIPPED = 256 << 20
"""A line of more bytes says that a file is no text, however small it was when packed."""
_BOM = b"\xef\xbb\xbf"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")

UNFINISHED = (
    *("fuzzy", "not translatable", "obsolete", "unfinished", "untranslated", "vanished"),
    *("no plural rule", "no words", "selectors", "symbolic id", "translators' credits"),
)
"""Reasons that are normal in translators' files: counted, but not as bad rows."""
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What damaged files raise."""
_OPEN: dict[str, Callable[..., object]] = dict(
    zip(PACKED, (gzip.open, bz2.open, lzma.open), strict=True)
)


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
    value: float = math.nan
    """Of labelled text the index of its label, or its score from 0 to 1."""
    dev: bool | None = None
    """Whether it is held out; None: a hash of the source decides."""


class Reject(NamedTuple):
    """A row that gives no pair, and why."""

    reason: str
    place: str
    raw: str | bytes


class Pair(NamedTuple):
    """What the formats yield; the rest of a row is the same for a whole file."""

    source: str
    target: str
    place: str
    domain: str | None = None


def checked_pair(source: object, target: object, place: str) -> Pair | Reject:
    """A pair of values of any type, if both are text."""
    if source is None or target is None:
        return Reject("missing value", place, repr((source, target)))
    if not isinstance(source, str) or not isinstance(target, str):
        return Reject("not a string", place, repr((source, target)))
    if _NO_TEXT.search(source) or _NO_TEXT.search(target):
        return Reject("NUL or lone surrogate", place, f"{source}\t{target}")
    return Pair(source, target, place)


def domain_of(value: object = None) -> str | None:
    """The domain that a value names; None where it names none. A column with gaps has 1.0 for 1."""
    if isinstance(value, float) and not math.isnan(value):
        value = int(value) if value.is_integer() else str(value)
    known = isinstance(value, str | int) and not isinstance(value, bool)
    written = str(value).strip() if known else ""
    return None if _NO_TEXT.search(written) else written or None


def in_domain(pair: Pair | Reject, value: object = None) -> Pair | Reject:
    """A pair whose domain is what a value names."""
    return pair if isinstance(pair, Reject) else pair._replace(domain=domain_of(value))


def lines(path: Path) -> Iterator[tuple[str, str | Reject]]:
    """Lines of a file with their places, decoded one by one.

    Item i is always line i, so that two files stay aligned whatever is in them.

    Raises:
        UserError: The file is damaged, or no text.
    """
    try:
        with open_file(path) as file:
            yield from lines_of(file, path)
    except BROKEN as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def lines_of(file: IO[bytes], path: Path) -> Iterator[tuple[str, str | Reject]]:
    """The same of an open file."""
    for number in count(1):
        line = file.readline(_MAX_LINE)
        if not line:
            return
        if number == 1:
            refuse_wide(line[:START], path)
        place = f"{path}:{number}"
        if len(line) == _MAX_LINE and not line.endswith(b"\n"):
            yield place, Reject("line too long", place, line[:200])
            skipped = len(line)
            while line and not line.endswith(b"\n"):
                line = file.readline(_MAX_LINE)
                skipped += len(line)
                if skipped > MAX_SKIPPED:
                    raise UserError(f"{place}: no text, the line does not end")
            continue
        yield place, _decode(line.removeprefix(_BOM) if number == 1 else line, place)


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The same of a file in which every line has to be text.

    Raises:
        UserError: One is none, or the file is damaged.
    """
    for place, line in lines(path):
        if isinstance(line, Reject):
            raise UserError(f"{place}: {line.reason}")
        yield place, line


def table_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The cells of each such line of a tab-separated file, with their places."""
    return ((place, line.split("\t")) for place, line in text_lines(path))


def count_lines(path: Path) -> int:
    """Lines of a file, without decoding them."""
    try:
        number = since = 0
        with open_file(path) as file:
            while (part := file.read(_MAX_LINE)) and since <= MAX_SKIPPED:
                found = part.count(b"\n")
                number, since = number + found, 0 if found else since + len(part)
        return number
    except BROKEN as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def content(path: Path) -> bytes:
    """A whole file, for formats that cannot be read piece by piece.

    Raises:
        UserError: The file is damaged, or has more than 256 MiB.
    """
    try:
        with open_file(path) as file:
            data = file.read(MAX_SKIPPED + 1)
    except BROKEN as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if len(data) > MAX_SKIPPED:
        raise UserError(f"{path}: more than {MAX_SKIPPED >> 20} MiB; split it")
    return data


def open_file(path: Path) -> BufferedReader:
    """A file to read, plain or packed (``.gz``, ``.bz2``, ``.xz``).

    Raises:
        UserError: It is packed otherwise than its name says, or no text.
    """
    if path.suffix in _OPEN:
        with path.open("rb") as raw:
            refuse_misnamed(raw.read(START), path)
    file = cast(BufferedReader, _OPEN.get(path.suffix, Path.open)(path, "rb"))
    try:
        refuse_packed(file.peek(START), path)
    except BaseException:
        file.close()
        raise
    return file


def _decode(line: bytes, place: str) -> str | Reject:
    line = line.rstrip(b"\r\n")
    if b"\0" in line:
        return Reject("NUL or lone surrogate", place, line)
    try:
        return line.decode()
    except UnicodeDecodeError:
        return Reject("not UTF-8", place, line)
