"""Errors of the configuration in a line: what, where, what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from hydra.errors import OverrideParseException
from pydantic import BaseModel, ValidationError

from mlkd.config.quoting import how_to_quote
from mlkd.config.stages import NO_LINK, StageSettings, known_stages


def explained(
    errors: ValidationError, schema: type[BaseModel], values: Mapping[Any, Any], prefix: str = ""
) -> str:
    """The first errors of a validation in a line.

    Args:
        errors: What pydantic raised.
        schema: What refused the values.
        values: The values.
        prefix: Where the schema is in the whole configuration, with a dot.
    """
    return "; ".join(f"{prefix}{_explain(e, schema, values)}" for e in errors.errors()[:3])


def _explain(error: Any, schema: type[BaseModel], values: Mapping[Any, Any]) -> str:
    """One pydantic error in words: key, value, what is allowed."""
    path = [str(part) for part in error["loc"]]
    key, message = ".".join(path), error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        is_link = path[0] == "stages" and len(path) > 2
        stage = values["stages"][path[1]]["stage"] if is_link else None
        return _unknown(key, schema, stage)
    if error["type"] == NO_LINK:
        given = values["stages"].items()
        links = (name for name, link in given if isinstance(link, dict) and "stage" in link)
        return f"{key}: {message}; its links: {', '.join(links)}"
    if error["type"] == "value_error":
        return f"{key}: {message}" if key else message
    value = error["input"]
    shown = "" if isinstance(value, dict | list) else f"={value}"
    return f"{key}{shown}: {message[0].lower()}{message[1:]}"


def _unknown(key: str, schema: type[BaseModel], stage: str | None) -> str:
    """What is wrong with a key that a schema, or the stage of a link, does not have."""
    if stage is not None and key in _keys(schema, key.split(".")):
        return f"{key}: the stage {stage} does not read it; a ~ before the key leaves it out"
    known = sorted(_keys(schema, key.split("."), stage))
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    return f"{key}: no such key" + (f"; did you mean {' or '.join(close)}?" if close else "")


def _keys(
    schema: type[BaseModel], path: Sequence[str], stage: str | None = None, prefix: str = ""
) -> set[str]:
    """All dotted keys of a schema.

    Args:
        schema: Of the whole.
        path: Names that are free to choose are those of this key.
        stage: That of the link, if the key is one of a link's; None = any.
        prefix: Where the schema is in the whole.
    """
    found: set[str] = set()
    for name, field in schema.model_fields.items():
        found.add(prefix + name)
        places = [f"{prefix}{name}."]
        if get_origin(field.annotation) is dict:
            named = get_args(get_args(field.annotation)[0])  # of a Literal; a str has none
            chosen = named or (path[1:2] if path[:1] == [name] else [])
            found |= {f"{prefix}{name}.{key}" for key in chosen}
            places = [f"{prefix}{name}.{key}." for key in chosen]
        for kind in _schemas(field.annotation, stage):
            for place in places:
                rest = path[place.removeprefix(prefix).count(".") :]
                found |= _keys(kind, rest, stage, place)
    return found


def _schemas(annotation: Any, stage: str | None) -> Iterator[type[BaseModel]]:
    """Schemas that a field may hold."""
    if annotation is StageSettings:
        yield from (s for name, s in known_stages().items() if stage in (None, name))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _schemas(inner, stage)


def one_line(error: Exception, schema: type[BaseModel]) -> str:
    """Hydra's message without line breaks, with a suggestion for an unknown key."""
    if isinstance(error, OverrideParseException):
        return how_to_quote(error.override)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and "full_key" in str(cause):
        key = str(cause).split("full_key:")[1].split()[0]
        path, around = key.split("."), getattr(cause, "parent_node", None) or {}
        if path[0] == "stages" and len(path) == 2:
            return f"{key}: the recipe has no such link; its links: {', '.join(around)}"
        stage = around.get("stage") if path[0] == "stages" and len(path) == 3 else None
        if key in _keys(schema, path, stage):  # legal, but in no file that was composed
            return f"{key}: not set so far; put a plus before it, as in +{key}=…"
        return _unknown(key, schema, stage)
    lines = [line for line in lines if not line.startswith(("Config search path", "provider="))]
    taken = re.search(r"An item is already at '(.+?)'", " ".join(lines))
    if taken:
        return f"{taken[1]}: set already; leave the plus out"
    missing = re.search(r"Could not find '(.+)/(.*)'$", lines[0]) if lines else None
    if missing and len(lines) > 1 and lines[1].startswith("Available options"):
        group, option = missing.groups()
        known = (name for name in lines[2:] if not name.endswith("schema"))
        return f"{group}={option}: no such option; allowed: {', '.join(known)}"
    if lines:
        lines[0] = re.sub(r"^In '[^']*': ", "", lines[0])
    return " ".join(lines)[:400]
