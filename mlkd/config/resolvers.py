"""What ``conf/`` computes: the languages of evaluation sets where a training has others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

from mlkd.config.languages import language_code, split_pair

_SET = ("mlkd.spoken", "mlkd.among", "hydra", "now", "python_version")
"""Names of resolvers that compositions set, ours and Hydra's."""


def spoken(languages: Sequence[str], *, _root_: Any) -> list[str]:
    """Those of ``data.languages`` and the sources of the corpora.

    All where ``data.languages`` is not set, or names none of them.

    Args:
        languages: Codes.
    """
    known = _codes(OmegaConf.select(_root_, "data.languages"))
    if not known.intersection(languages):
        return [*languages]
    corpora = OmegaConf.select(_root_, "data.corpora") or {}
    sources = _codes([corpus.get("source", "en") for corpus in corpora.values()]) or {"en"}
    return [language for language in languages if language in known | sources]


def among(pairs: Sequence[str], languages: Any) -> list[str] | None:
    """Pairs whose languages are both among some; None where there is no such pair.

    Args:
        pairs: As ``en-de``.
        languages: Codes.
    """
    known = _codes(languages)
    return [pair for pair in pairs if known.issuperset(split_pair(pair))] or None


def _codes(languages: Any) -> set[str]:
    """Languages in their standard form; none where one is none, which the schema says better."""
    wanted = [languages] if isinstance(languages, str) else languages or []
    try:
        return {language_code(language) for language in wanted}
    except (TypeError, ValueError):
        return set()


@contextmanager
def resolving() -> Iterator[None]:
    """Let OmegaConf find them as ``${mlkd.spoken:…}`` and ``${mlkd.among:…}`` for a while.

    Afterwards it has the resolvers that it had, without those that Hydra sets.
    """
    known = BaseContainer._resolvers
    before = {name: known.get(name) for name in _SET}
    for resolver in (spoken, among):
        OmegaConf.register_new_resolver(f"mlkd.{resolver.__name__}", resolver, replace=True)
    try:
        yield
    finally:
        for name, was in before.items():
            if was is None:
                known.pop(name, None)
            else:
                known[name] = was
