"""Quotes in Hydra's grammar, for values that it would read as something else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import suppress

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

_OPTIONS = {
    *("--cfg", "-c", "--package", "-p", "--info", "-i"),
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
}
"""Hydra's options that have a value behind them."""


def quoted(value: str) -> str:
    """A text in the quotes of Hydra's grammar."""
    return "'" + re.sub(r"(\\*)'", r"\1\1\\'", value) + "'"


def bare_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words of a command line that stand without a key, and the others."""
    bare: list[str] = []
    rest: list[str] = []
    before = ""
    for word in words:
        is_value = before in _OPTIONS
        is_bare = not is_value and "=" not in word and not word.startswith(("-", "+", "~"))
        (bare if is_bare else rest).append(word)
        before = word
    return bare, rest


def listed(key: str, values: Sequence[str]) -> str:
    """An override that sets a list of texts."""
    return f"{key}=[{','.join(map(quoted, values))}]"


def how_to_quote(override: str) -> str:
    """What to write instead of an override that cannot be read, on one line.

    What is shown has been tried out; the outermost quotes are for the shell.
    """
    key, equals, value = override.partition("=")
    candidates = [quoted(value)]
    if value[:1] + value[-1:] == "[]":
        items = (item.strip() for item in value[1:-1].split(","))
        candidates.insert(0, f"[{','.join(map(quoted, items))}]")
    for candidate in candidates if equals else ():
        with suppress(HydraException):
            OverridesParser.create().parse_override(f"{key}={candidate}")
            text = f"{key}={candidate}"
            written = shlex.quote(text) if re.search(r'["$`\\!]', text) else f'"{text}"'
            return f"{override}: braces, blanks and other marks need quotes; write {written}"
    return f"{override}: cannot be read; allowed: key=value, or key='value' with other marks in it"
