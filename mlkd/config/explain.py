"""Errors of the configuration in a line: what, where, what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from hydra.errors import OverrideParseException
from pydantic import BaseModel

from mlkd.config.quoting import how_to_quote
from mlkd.config.stages import StageSettings, known_stages


def explain(error: Any, schema: type[BaseModel]) -> str:
    """One pydantic error in words: key, value, what is allowed."""
    path = [str(part) for part in error["loc"]]
    key, message = ".".join(path), error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{key}: no such key{_suggestion(key, schema)}"
    if error["type"] == "value_error":
        return f"{key}: {message}" if key else message
    value = error["input"]
    shown = "" if isinstance(value, dict | list) else f"={value}"
    return f"{key}{shown}: {message[0].lower()}{message[1:]}"


def _suggestion(key: str, schema: type[BaseModel]) -> str:
    """The known keys closest to a wrong one."""
    known = sorted(_keys(schema, key.split(".")))
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _keys(schema: type[BaseModel], path: Sequence[str], prefix: str = "") -> set[str]:
    """All dotted keys of a schema; names that are free to choose are those of ``path``."""
    found: set[str] = set()
    for name, field in schema.model_fields.items():
        found.add(prefix + name)
        places = [f"{prefix}{name}."]
        if get_origin(field.annotation) is dict:
            named = get_args(get_args(field.annotation)[0])  # of a Literal; a str has none
            chosen = named or (path[1:2] if path[:1] == [name] else [])
            found |= {f"{prefix}{name}.{key}" for key in chosen}
            places = [f"{prefix}{name}.{key}." for key in chosen]
        for kind in _schemas(field.annotation):
            for place in places:
                rest = path[place.removeprefix(prefix).count(".") :]
                found |= _keys(kind, rest, place)
    return found


def _schemas(annotation: Any) -> Iterator[type[BaseModel]]:
    """Schemas that a field may hold."""
    if annotation is StageSettings:
        yield from known_stages().values()
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _schemas(inner)


def one_line(error: Exception, schema: type[BaseModel]) -> str:
    """Hydra's message without line breaks, with a suggestion for an unknown key."""
    if isinstance(error, OverrideParseException):
        return how_to_quote(error.override)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and "full_key" in str(cause):
        key = str(cause).split("full_key:")[1].split()[0]
        if key in _keys(schema, key.split(".")):  # legal, but in no file that was composed
            return f"{key}: not set so far; put a plus before it, as in +{key}=…"
        return f"{key}: no such key{_suggestion(key, schema)}"
    lines = [line for line in lines if not line.startswith(("Config search path", "provider="))]
    missing = re.search(r"Could not find '(.+)/(.*)'$", lines[0]) if lines else None
    if missing and len(lines) > 1 and lines[1].startswith("Available options"):
        group, option = missing.groups()
        known = (name for name in lines[2:] if not name.endswith("schema"))
        return f"{group}={option}: no such option; allowed: {', '.join(known)}"
    if lines:
        lines[0] = re.sub(r"^In '[^']*': ", "", lines[0])
    return " ".join(lines)[:400]
