"""What callers from Python give, as sections of a configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from mlkd.config.compose import configured
from mlkd.config.evaluation import EvalConfig
from mlkd.config.languages import split_pair
from mlkd.config.paths import unpacked_name, user_path
from mlkd.output.errors import UserError

Config = TypeVar("Config", bound=BaseModel)

NOT_BOTH = "give a configuration or settings, not both"

_FORMATS = {
    ".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".json": "json", ".parquet": "parquet",
    ".tmx": "tmx", ".xlf": "xliff", ".xliff": "xliff", ".po": "gettext", ".mo": "gettext",
}  # fmt: skip
"""Format of a file of pairs by the end of its name."""

Pairs = Mapping[str, str | os.PathLike[str] | Mapping[str, Any]]
"""By translation language a file of pairs, or the values of a corpus."""


def chosen(
    name: str,
    schema: type[Config],
    first: Any,
    overrides: Sequence[str],
    settings: Mapping[str, Any],
) -> Config:
    """The configuration that a call means.

    Args:
        name: The command that it is of.
        schema: What it is validated against.
        first: The first argument of the call; it may be the whole configuration.
        overrides: As on the command line.
        settings: Values by name, the first argument among them.

    Raises:
        UserError: There is more than a configuration, or a value is wrong.
    """
    if not isinstance(first, schema):
        return configured(name, schema, overrides, sections(settings))
    if overrides or any(value not in (None, first) for value in settings.values()):
        raise UserError(NOT_BOTH)
    return first


def sections(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with paths as texts, and a teacher by its option, folder or name on the hub."""
    found = {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in given.items()}
    teacher = found.get("teacher")
    if isinstance(teacher, str) and user_path(teacher).is_dir():
        found["teacher"] = {"path": teacher}
    elif isinstance(teacher, str) and "@" in teacher:
        name, revision = teacher.rsplit("@", 1)
        found["teacher"] = {"name": name, "revision": revision}
    return found


def with_pairs(pairs: Pairs, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings whose section ``data`` has a corpus a language, those of pairs.

    Raises:
        UserError: They are not by language, the section has other corpora, or the end of a file's
            name says nothing about its format.
    """
    if not isinstance(pairs, Mapping):
        raise UserError(f"pairs={pairs}: give files by language, as {{'de': 'pairs.en-de.tsv'}}")
    data = settings.get("data", {})
    if not isinstance(data, Mapping) or "corpora" in data:
        raise UserError("data: an option or corpora of it and pairs exclude each other")
    corpora = {language: _corpus(language, given) for language, given in pairs.items()}
    return {**settings, "data": {**data, "corpora": corpora}}


def _corpus(language: str, given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return {"targets": [language], **given}
    if not isinstance(given, str | os.PathLike):
        kind = type(given).__name__
        raise UserError(
            f"pairs[{language!r}]: {kind}; give a file, or a mapping as in data.corpora"
        )
    path = user_path(given)
    ending = unpacked_name(path).suffix
    if ending not in _FORMATS:
        raise UserError(
            f"pairs[{language!r}]={path}: the end of the name says no format; allowed: "
            f"{', '.join(_FORMATS)}, or a mapping as in data.corpora"
        )
    return {"format": _FORMATS[ending], "path": str(path.absolute()), "targets": [language]}


def demo_in_languages(demo: EvalConfig, pairs: Mapping[str, Any]) -> dict[str, Any]:
    """The demo's evaluation sets in the languages of pairs, sources included.

    Args:
        demo: All of them.
        pairs: Corpora by language, as :func:`with_pairs` gives them.

    Raises:
        UserError: The demo has no sets in one of them.
    """
    languages = {*pairs, *(corpus.get("source", "en") for corpus in pairs.values())}
    known = {language for one in demo.sets.values() for language in one.languages}
    if missing := sorted(languages - known):
        raise UserError(f"eval: the demo has no sets in {missing[0]}; give sets of your own")
    sets = {}
    for name, one in demo.sets.items():
        spoken = [x for x in one.languages if x in languages]
        among = one.pairs and [p for p in one.pairs if {*split_pair(p)} <= languages]
        sets[name] = one.model_copy(update={"languages": spoken, "pairs": among}).model_dump()
    return {"sets": sets}
