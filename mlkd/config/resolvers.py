"""What ``conf/`` computes: the languages of evaluation sets where a training has fewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from mlkd.config.languages import language_code, split_pair


def spoken(languages: Sequence[str], *, _root_: Any) -> list[str]:
    """Those of English and ``data.languages``; all where these are not set, or name none of them.

    Args:
        languages: Codes.
    """
    given = OmegaConf.select(_root_, "data.languages")
    wanted = [given] if isinstance(given, str) else given or []
    try:
        known = {language_code(language) for language in wanted}
    except ValueError:  # which the schema says better
        return [*languages]
    if not known.intersection(languages):
        return [*languages]
    return [language for language in languages if language in known | {"en"}]


def among(pairs: Sequence[str], languages: Sequence[str] | str) -> list[str]:
    """Pairs whose languages are both among some.

    Args:
        pairs: As ``en-de``.
        languages: Codes.
    """
    known = {languages} if isinstance(languages, str) else set(languages)
    return [pair for pair in pairs if known.issuperset(split_pair(pair))]


def register() -> None:
    """Let OmegaConf find them as ``${mlkd.spoken:…}`` and ``${mlkd.among:…}``."""
    for resolver in (spoken, among):
        OmegaConf.register_new_resolver(f"mlkd.{resolver.__name__}", resolver, replace=True)
