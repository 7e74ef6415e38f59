"""Languages in the names of files and folders of translations."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mlkd.data.formats.codes import best, speaks

_CODE = r"[a-z]{2,3}(?:[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|\d{3}))*(?:@[A-Za-z]+)?"
_WHOLE = re.compile(_CODE)
_AFTER = re.compile(rf"[-._]({_CODE})")


@cache
def _known() -> frozenset[str]:
    """Languages that software is translated into."""
    from translate.lang.data import languages

    return frozenset(re.split("[_@]", code)[0] for code in languages) | {"iw", "in", "sh"}


def is_code(name: str, asked: str | None = None) -> bool:
    """Whether a name is a language code, as ``de``, ``pt_BR``, ``sr@latin``."""
    language = re.split("[-_@]", name)[0]
    known = language in _known() or (asked is not None and language == asked.split("-")[0])
    return bool(_WHOLE.fullmatch(name)) and known


def language_of_name(path: Path, asked: str | None = None) -> str | None:
    """The language at the end of a file's name: ``de.po``, ``shop-pt_BR.po``, ``app.de.xlf``."""
    stem = path.name.split(".", 1)[0] if path.name.startswith(".") else path.stem
    if is_code(stem, asked):
        return stem
    for match in _AFTER.finditer(stem):
        if match.end() == len(stem) and is_code(match[1], asked):
            return match[1]
    return None


def language_of(path: Path, folder: Path, asked: str) -> str | None:
    """The language of a file somewhere below a folder, by its names.

    ``<language>/LC_MESSAGES/…/x.po`` comes first, then ``<language>/x.po``, ``<language>.po``, a
    folder further up, and ``x-<language>.po`` or ``x.<language>.po``.
    """
    parts = path.parent.parts
    below = path.parent.relative_to(folder).parts
    if "LC_MESSAGES" in parts:
        place = len(parts) - 1 - parts[::-1].index("LC_MESSAGES")
        return parts[place - 1] if place else None
    if below and is_code(below[-1], asked):
        return below[-1]
    if is_code(path.stem, asked):
        return path.stem
    further = next((part for part in reversed(below) if is_code(part, asked)), None)
    return further or language_of_name(path, asked)


class Choice(NamedTuple):
    """The files of one language below a folder."""

    files: list[Path]
    left: list[Path]
    """Files whose names say no language, or the language in another region than those chosen."""

    def words(self) -> str:
        """What is left out."""
        shown = ", ".join(path.name for path in self.left[:3])
        more = ", …" if len(self.left) > 3 else ""
        return (
            f"{len(self.left)} left out, whose names say no language or another region: "
            f"{shown}{more}"
        )


def choose(files: list[Path], folder: Path, asked: str, *, all_asked: bool) -> Choice:
    """The files of a language, each catalogue once: the exact code before a regional one.

    Args:
        files: All files below the folder.
        folder: Where they were looked for.
        asked: The language.
        all_asked: Whether a file whose name says no language may be in that language.
    """
    catalogues: dict[str, dict[str, Path]] = defaultdict(dict)
    chosen: list[Path] = []
    left: list[Path] = []
    for path in files:
        code = language_of(path, folder, asked)
        if code is None:
            (chosen if all_asked else left).append(path)
        else:
            name = str(path.relative_to(folder))
            key = re.sub(rf"(?<![A-Za-z]){re.escape(code)}(?![A-Za-z])", "*", name)
            catalogues[key].setdefault(code, path)
    for forms in catalogues.values():
        code = best(forms, asked)
        if code is not None:
            chosen.append(forms[code])
            left += [
                path for other, path in forms.items() if other != code and speaks(other, asked)
            ]
    return Choice(sorted(chosen), sorted(left))
