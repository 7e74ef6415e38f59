"""Languages in the names of files and folders of translations."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache, lru_cache
from locale import locale_alias
from pathlib import Path
from typing import NamedTuple

from mlkd.config.paths import unpacked_name
from mlkd.data.formats.codes import best, is_language, is_usual, related, speaks, standard
from mlkd.data.rows import BROKEN, open_file
from mlkd.output.errors import UserError

_CODE = r"[a-z]{2,3}(?:[-_](?:[A-Za-z]{4}|[A-Za-z]{2}|\d{3}))*(?:@[A-Za-z]+)?"
_WHOLE = re.compile(_CODE)
_AT_END = re.compile(rf"[-._](?=({_CODE})$)")
_HEAD = 1 << 18
"""Bytes at whose start a file says its language."""


@cache
def _known() -> frozenset[str]:
    """Languages that software is translated into."""
    from translate.lang.data import languages

    return frozenset(re.split("[_@]", code)[0] for code in languages) | {"iw", "in", "sh"}


def is_code(name: str, asked: str | None = None, source: str | None = None) -> bool:
    """Whether a name is a language code, as ``de``, ``pt_BR``, ``pt-br``, ``sr@latin``.

    Small letters are a region where there is such a locale, unless the two are a pair of languages
    (``en-de`` with English sources).
    """
    if not _WHOLE.fullmatch(name):
        return False
    language, *rest = re.split("[-_]", name.partition("@")[0])
    regions = [part for part in rest if part.islower() and len(part) == 2]
    if regions and (language == source or f"{language}_{regions[-1]}" not in locale_alias):
        return False
    known = language in _known() or (asked is not None and language == asked.split("-")[0])
    return known and (not rest or is_language(name))


def language_of_name(path: Path, asked: str | None = None, source: str | None = None) -> str | None:
    """The language at the end of a file's name: ``de.po``, ``shop-pt_BR.po``, ``app.de.xlf``."""
    plain = unpacked_name(path)
    stem = plain.name.split(".", 1)[0] if plain.name.startswith(".") else plain.stem
    if is_code(stem, asked, source):
        return stem
    ends = (match[1] for match in _AT_END.finditer(stem))
    return next((code for code in ends if is_code(code, asked, source)), None)


def language_of(path: Path, folder: Path, asked: str, source: str | None = None) -> str | None:
    """The language of a file somewhere below a folder, by its names.

    ``<language>/LC_MESSAGES/…/x.po`` comes first, then ``<language>/x.po``, ``<language>.po``, a
    folder further up, and ``x-<language>.po`` or ``x.<language>.po``.
    """
    parts = path.parent.parts
    below = path.parent.relative_to(folder).parts
    if "LC_MESSAGES" in parts:
        place = len(parts) - 1 - parts[::-1].index("LC_MESSAGES")
        code = parts[place - 1].partition(".")[0] if place else ""  # de_DE.UTF-8
        if is_language(code):
            return code
    if below and is_code(below[-1], asked, source):
        return below[-1]
    if is_code(unpacked_name(path).stem, asked, source):
        return unpacked_name(path).stem
    further = next((part for part in reversed(below) if is_code(part, asked, source)), None)
    return further or language_of_name(path, asked, source)


def said_within(path: Path, pattern: re.Pattern[str]) -> str | None:
    """The language that a file says at its start; None if it says none, or several.

    Args:
        path: The file, plain or packed.
        pattern: Its first group is a code.
    """
    try:
        state = path.stat()
        return _said_at_start(path, pattern, state.st_mtime_ns, state.st_size)
    except (*BROKEN, UserError):  # whoever reads it says what it is
        return None


@lru_cache(maxsize=1 << 16)
def _said_at_start(path: Path, pattern: re.Pattern[str], *_state: int) -> str | None:
    """The same of a file that can be read; once a file, as long as it stays as it is."""
    with open_file(path) as file:
        start = file.read(_HEAD)
    wide = b"\0" in start[:4]
    text = start.decode("utf-16" if wide else "latin-1", errors="replace")
    codes = {match[1] for match in pattern.finditer(text) if is_language(match[1])}
    return codes.pop() if len(codes) == 1 else None


class Choice(NamedTuple):
    """The files of one language below a folder."""

    folder: Path
    files: list[Path]
    left: list[Path]
    """Files that say no language, another one than their names, or another region."""

    def words(self) -> str:
        """What is left out."""
        shown = ", ".join(str(path.relative_to(self.folder)) for path in self.left[:3])
        more = ", …" if len(self.left) > 3 else ""
        return (
            f"{len(self.left)} left out, which say no language, another one than their names, or "
            f"another region: {shown}{more}"
        )


def _agrees(path: Path, folder: Path, said: str) -> bool:
    """Whether some part of a path names the language that the file says."""
    parts = [*path.parent.relative_to(folder).parts, unpacked_name(path).stem]
    names = [*parts, *(match[1] for match in _AT_END.finditer(parts[-1]))]
    return any(is_code(name) and related(name, said) for name in names)


class _Form(NamedTuple):
    """A file as a catalogue in one language."""

    code: str
    catalogue: str
    """Its path with a ``*`` for the language."""
    by_name: bool
    """Whether its names say the language just as the code does."""


def choose_files(
    files: Iterable[Path],
    folder: Path,
    asked: str,
    source: str,
    said: re.Pattern[str],
    *,
    all_asked: bool,
) -> Choice:
    """The files of a language, each catalogue once: the exact code before a regional one.

    What a file says itself counts where its names say no language, or a language without the region
    or script that is asked for. Where the two disagree, a file is believed if its format always
    says its languages, or if another part of its path agrees; else it is left out.

    Args:
        files: All files below the folder.
        folder: Where they were looked for.
        asked: The language.
        source: Language of the source side.
        said: How a file says its language (see :func:`said_within`).
        all_asked: Whether a file that says no language may be in that language; then it is also
            believed.
    """
    catalogues: dict[str, dict[str, Path]] = defaultdict(dict)
    chosen: list[Path] = []
    left: list[Path] = []
    for path in files:
        named, within = language_of(path, folder, asked, source), said_within(path, said)
        if named is None and within is None:
            (chosen if all_asked else left).append(path)
            continue
        differ = named is not None and within is not None and not related(named, within)
        if differ and not (all_asked or _agrees(path, folder, str(within))):
            left += [path] if any(speaks(str(code), asked) for code in (named, within)) else []
            continue
        form = _form(str(path.relative_to(folder)), named, within, asked)
        if differ and speaks(str(named), asked) and not speaks(form.code, asked):
            left.append(path)
        forms = catalogues[form.catalogue]
        if form.code in forms:  # pt.po and pt_BR.po, which both say pt_BR
            left.append(forms[form.code] if form.by_name else path)
        if form.by_name or form.code not in forms:
            forms[form.code] = path
    for forms in catalogues.values():
        code = best(sorted(forms, key=lambda form: not is_usual(form, asked)), asked)
        if code is not None:
            chosen.append(forms.pop(code))
            left += [path for other, path in forms.items() if speaks(other, asked)]
    return Choice(folder, sorted(chosen), sorted(left))


def _form(name: str, named: str | None, within: str | None, asked: str) -> _Form:
    """What a file is, of which its names or it itself say a language."""
    if named is None or (within is not None and not related(named, within)):
        return _Form(str(within), name, by_name=False)
    catalogue = re.sub(rf"(?<![A-Za-z]){re.escape(named)}(?![A-Za-z])", "*", name)
    finer = within is not None and "-" in asked and named.isalpha()
    code = str(within) if finer else named
    return _Form(code, catalogue, by_name=standard(named) == standard(code))
