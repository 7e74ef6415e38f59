"""Message catalogues of gettext, ``.po`` and ``.mo``."""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlkd.config.paths import unpacked_name
from mlkd.data.formats.asked import Asked
from mlkd.data.formats.base import Wanted
from mlkd.data.formats.codes import is_language, related
from mlkd.data.formats.plurals import MANY, ONE, gettext_form
from mlkd.data.formats.sentences import is_symbolic, sentence_pair
from mlkd.data.rows import Pair, Reject, content, open_file
from mlkd.data.sniff import START, refuse_wide
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of

SUFFIXES = (".mo", ".po")
NAMED = True
SAID = re.compile(r"^(?:msgstr )?\"?Language: *([\w@-]+)", re.MULTILINE)


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """One pair a message, two a message with plural forms."""
    asked = Asked(wanted)
    for path in files:
        catalogue = _load(path)
        # A region or a script is often missing here, so that the language alone counts.
        said = str(catalogue.metadata.get("Language", "")).partition(".")[0]
        known = said if is_language(said) and not related(said, wanted.target) else wanted.target
        if asked.has(None, known):
            yield from _entries(catalogue, wanted, path)
    asked.check()


def _load(path: Path) -> Any:
    import polib

    plain = unpacked_name(path)
    try:
        with open_file(path) as file:
            if plain.suffix == ".po":
                refuse_wide(file.peek(START), path)
        load = polib.mofile if plain.suffix == ".mo" else polib.pofile
        if plain == path:
            return load(str(path))
        with tempfile.TemporaryDirectory() as folder:
            unpacked = Path(folder) / plain.name
            unpacked.write_bytes(content(path))
            return load(str(unpacked))
    except (OSError, ValueError, struct.error) as error:
        raise UserError(f"{path}: not a readable catalogue ({reason_of(error)})") from None


def _entries(catalogue: Any, wanted: Wanted, path: Path) -> Iterator[Pair | Reject]:
    rule = catalogue.metadata.get("Plural-Forms")
    ids = sum(is_symbolic(entry.msgid) for entry in catalogue)
    named = ids > 0.5 * len(catalogue)  # by the names of messages: then "title" is one, too
    for number, entry in enumerate(catalogue, 1):
        place = f"{path}:{getattr(entry, 'linenum', None) or number}"
        forms = [entry.msgstr_plural[form] for form in sorted(entry.msgstr_plural)]
        if entry.obsolete:
            yield Reject("obsolete", place, entry.msgid)
        elif "fuzzy" in entry.flags:
            yield Reject("fuzzy", place, entry.msgid)
        elif not all(forms or [entry.msgstr]):
            yield Reject("untranslated", place, entry.msgid)
        elif named:
            yield Reject("symbolic id", place, entry.msgid)
        elif not forms:
            yield sentence_pair(entry.msgid, entry.msgstr, place)
        else:
            for source, count in ((entry.msgid, ONE), (entry.msgid_plural, MANY)):
                form = gettext_form(rule, wanted.target, len(forms), count)
                if form is None:
                    yield Reject("no plural rule", place, source)
                else:
                    yield sentence_pair(source, forms[form], place)
