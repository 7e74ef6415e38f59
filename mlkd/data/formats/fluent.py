"""Mozilla's Fluent, ``.ftl``, of two languages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlkd.data.formats.base import Wanted
from mlkd.data.formats.keyed import pairs_by_key
from mlkd.data.rows import Pair, Reject, content
from mlkd.data.sniff import refuse_wide
from mlkd.output.errors import UserError

TWO_FILES = True
_NO_TEXT = {"accesskey", "commandkey", "key", "keycode", "modifiers", "style"}
"""Attributes that hold keys and style sheets."""


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """Pairs by key; an attribute has one of its own."""
    source, _ = _messages(files[0])
    target, junk = _messages(files[1])
    for text in junk:
        yield Reject("no message", str(files[1]), text)
    selecting = [key for key in source if source[key] is None or target.get(key, "") is None]
    for key in selecting:
        yield Reject("selectors", f"{files[1]}:{key}", source[key] or "")
    sides = [
        {key: text for key, text in side.items() if text is not None and key not in selecting}
        for side in (source, target)
    ]
    yield from pairs_by_key(sides[0], sides[1], files[1])


def _messages(path: Path) -> tuple[dict[str, str | None], list[str]]:
    """Texts by key, of attributes by ``key.attribute``, None where one selects; and junk."""
    from fluent.syntax import ast, parse

    try:
        data = content(path)
        refuse_wide(data, path)
        resource = parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: no UTF-8") from None
    found: dict[str, str | None] = {}
    junk: list[str] = []
    for entry in resource.body:
        if isinstance(entry, ast.Junk):
            junk.append(entry.content or "")
        elif isinstance(entry, ast.Message | ast.Term):
            key = ("-" if isinstance(entry, ast.Term) else "") + entry.id.name
            if entry.value is not None:
                found[key] = _text(entry.value)
            for attribute in entry.attributes:
                name = attribute.id.name
                text = "" if name in _NO_TEXT else _text(attribute.value)
                found[f"{key}.{name}"] = text
    return found, junk


def _text(pattern: Any) -> str | None:
    from fluent.syntax import ast
    from fluent.syntax.serializer import serialize_placeable

    parts = []
    for element in pattern.elements:
        if isinstance(element, ast.TextElement):
            parts.append(element.value)
        elif isinstance(element.expression, ast.SelectExpression):
            return None
        elif isinstance(element.expression, ast.StringLiteral):
            parts.append(element.expression.parse()["value"])
        else:
            parts.append(serialize_placeable(element))
    return "".join(parts)
