"""Lines of tab-separated text: cells, headers that nobody announced, quotes of CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.codes import language_names, related
from mlkd.data.rows import Reject

_HEADER_WORDS = {
    "source", "target", "src", "tgt", "trg", "text", "translation", "translated", "original",
    "sentence", "sentences", "sent", "english", "non", "id", "lang", "language", "segment",
    "string", "foreign", "query", "question", "passage", "answer", "anchor", "positive",
    "premise", "hypothesis", "label", "score", "sentiment", "similarity", "mt", "ref", "reference",
    "term", "msgid", "msgstr", "input", "output", "col", "column", "prediction", "candidate",
    "key", "value", "phrase",
}  # fmt: skip
_CALLED = {
    "ar": "العربية", "cs": "čeština", "da": "dansk", "de": "deutsch", "el": "ελληνικά",
    "es": "español castellano", "fa": "farsi فارسی", "fi": "suomi", "fil": "tagalog",
    "fr": "français", "hi": "हिन्दी", "hu": "magyar", "it": "italiano", "ja": "日本語",
    "ko": "한국어", "nl": "nederlands", "no": "norsk norwegian", "nb": "norsk norwegian",
    "pl": "polski", "pt": "português brazilian", "ro": "română", "ru": "русский",
    "sr": "srpski српски latin cyrillic", "sv": "svenska", "tr": "türkçe", "uk": "українська",
    "zh": "中文 chinese simplified traditional",
}  # fmt: skip
"""Names of languages in themselves, and what their codes do not lead to."""
_ENGLISH = set(
    "englisch anglais inglés inglese inglês engels engelska engelsk angielski ingilizce "
    "английский 英語 英语".split()
)
"""Names of English that no English column has as its first text."""
_REGION = re.compile(r"(?<=\w)\s*[(（][^()（）]+[)）]$")
"""What stands behind a name, as in ``Español (Latinoamérica)``."""
_LOOK_AHEAD = 100
"""Lines that a quoted cell may go on for."""

Line = tuple[str, "str | Reject"]


def cells(
    wanted: Wanted, columns: list[str | int], path: Path, rows: Iterable[Line]
) -> Iterator[tuple[str, list[str] | Reject]]:
    """The chosen cells of each data line; the first good line sets the width.

    Args:
        wanted: The corpus.
        columns: Positions, or names of its header.
        path: The file, for messages.
        rows: Its lines with their places.

    Raises:
        UserError: There is no such column, a header is not announced, or the cells are quoted.
    """
    rows, header = iter(rows), bool(wanted.corpus.header)
    first = next(rows, (str(path), "")) if header else (str(path), "")
    names = first[1].split("\t") if header and isinstance(first[1], str) else []
    chosen = positions(wanted, columns, names if header else None, path)
    least, width = max(chosen) + 1, len(names)
    quoted = _Quoted(wanted)
    is_first = not header
    for place, line in rows:
        if isinstance(line, Reject):
            yield place, line
            continue
        found = line.split("\t")
        if not width and len(found) >= least:
            width = len(found)
        quoted.check(place, line, width or least)
        if len(found) != width:
            yield place, Reject("wrong column count", place, line)
            continue
        texts = [found[c] for c in chosen]
        if any(map(_is_quoted, texts)):
            yield place, Reject("quoted as CSV", place, line)
            continue
        if is_first:
            refuse_header(wanted, texts, place)
            is_first = False
        yield place, texts


def positions(
    wanted: Wanted, columns: list[str | int], names: list[str] | None, path: Path
) -> list[int]:
    """Positions of columns that are given by position or name.

    Args:
        wanted: The corpus.
        columns: Positions or names.
        names: Names in the header; None without one.
        path: The file, for the message.
    """
    found = [names.index(c) if isinstance(c, str) and names and c in names else c for c in columns]
    end = 1 << 16 if names is None else len(names)
    wrong = [c for c in found if isinstance(c, str) or not 0 <= c < end]
    if wrong:
        allowed = "positions from 0, or names with header=true"
        allowed = allowed if names is None else ", ".join(names)
        key = ".domain_column" if wrong[0] == wanted.corpus.domain_column else ".columns"
        raise wanted.refuse(f"no {wrong[0]!r} in {path}; it has {allowed}", key)
    return [c for c in found if isinstance(c, int)]


def refuse_header(wanted: Wanted, texts: list[str], place: str) -> None:
    """Stop at a first row that names its columns, for it would be trained as a pair.

    ``header: false`` says that it is one.
    """
    if wanted.corpus.header is not None:
        return
    if wanted.corpus.domain_column is not None:
        texts = texts[:-1]  # whatever the column of the domain is called
    texts = [_REGION.sub("", text.strip().strip('"')) for text in texts]
    alike = len({tuple(re.findall(r"\w+", text.lower())) for text in texts}) == 1
    codes = [wanted.source, wanted.target]  # "German" and "Deutsch" are a pair, and no header
    named = any(all(map(_is_name, texts, cycle(order))) for order in (codes, codes[::-1]))
    foreign = wanted.source == "en" and texts[0].lower() in _ENGLISH
    alone = len(texts) == 1 and texts[0] in _HEADER_WORDS  # a sentence starts with a capital
    if alone or (not alike and (named or foreign)):
        raise wanted.refuse(
            f"the first row ({', '.join(texts)}) of {place} looks like the names of the columns; "
            f"{wanted.section}.{wanted.name}.header=true, or header=false if it is none",
            ".header",
        )


def _is_name(text: str, language: str) -> bool:
    """Whether a cell is the code of its language, or made of words that name columns."""
    own = _CALLED.get(language.partition("-")[0], "").split()
    words = _HEADER_WORDS.union(language_names(language), own)
    parts = re.findall(r"[^\W\d_]+", text.lower())
    return (bool(parts) and words.issuperset(parts)) or related(text, language)


class _Quoted:
    """Finds cells that open a quote which a later line closes, as pandas writes line ends."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._open: list[str] = []
        self._place = ""

    def check(self, place: str, line: str, width: int) -> None:
        """Take a line; stop where it ends a record of the right width that began before."""
        if self._open:
            self._open.append(line)
            closed = _record(self._open)
            if closed == width:
                raise self._wanted.refuse(
                    f"{self._place}: a cell opens a quote that another line closes; the file is "
                    "quoted as CSV: format: csv, delimiter: tab",
                    ".format",
                )
            if closed is not None or len(self._open) > _LOOK_AHEAD:
                self._open = []
        if not self._open:
            last = line.rpartition("\t")[2]
            if last.startswith('"') and last.count('"') % 2:
                self._open, self._place = [line], place


def _record(lines: list[str]) -> int | None:
    """Cells of the lines as one quoted record; None while a quote is open, 0 if they are none."""
    try:
        records = list(csv.reader([line + "\n" for line in lines], delimiter="\t", strict=True))
    except csv.Error as error:
        return None if "unexpected end" in str(error) else 0
    return len(records[0]) if len(records) == 1 else 0


def _is_quoted(text: str) -> bool:
    """Whether a cell is in quotes and has doubled ones within, and only those."""
    inner = text[1:-1]
    return '""' in inner and text[0] == text[-1] == '"' and '"' not in inner.replace('""', "")
