"""Which of the languages that a file names is the one that is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import langcodes

from mlkd.config.languages import language_code, spellings

_NORWEGIAN = {"no", "nb", "nn"}


@lru_cache(maxsize=1 << 12)
def standard(written: str) -> str:
    """The BCP 47 form of a code as files write it (``EN-US``, ``pt_br``); as it is if none."""
    try:
        return language_code(written)
    except ValueError:
        return written


@lru_cache(maxsize=1 << 14)
def speaks(code: str, asked: str) -> bool:
    """Whether a code of a file is the language that is asked for, or a form of it.

    ``de-AT`` is ``de`` and ``zh-CN`` is ``zh-Hans``, but ``pt-PT`` and ``pt`` are not ``pt-BR``.
    """
    if standard(code) == asked:
        return True
    try:
        here, there = langcodes.Language.get(standard(code)), langcodes.Language.get(asked)
    except ValueError:
        return False
    return (
        here.language == there.language
        and (there.script is None or here.maximize().script == there.script)
        and (there.territory is None or here.territory == there.territory)
        and set(there.variants or []) <= set(here.variants or [])
    )


def best(codes: Iterable[str], asked: str) -> str | None:
    """The exact code if it is there, else the first that is a form of the language."""
    found = [code for code in codes if speaks(code, asked)]
    return next((code for code in found if standard(code) == asked), found[0] if found else None)


@lru_cache(maxsize=1 << 12)
def is_usual(code: str, asked: str) -> bool:
    """Whether a form of a language is the one that it mostly has: ``de-DE`` of ``de``."""
    if not is_language(code):
        return False
    here, there = (langcodes.Language.get(c).maximize() for c in (standard(code), asked))
    return here.to_tag() == there.to_tag()


def related(code: str, asked: str) -> bool:
    """Whether two codes are of one language, whatever the region and script."""
    if not is_language(code):
        return False
    one, two = (langcodes.Language.get(standard(c)).language for c in (code, asked))
    return one == two or {one, two} <= _NORWEGIAN


def is_language(written: str) -> bool:
    """Whether a text is the code of a language."""
    try:
        language_code(written)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=64)
def language_names(code: str) -> frozenset[str]:
    """Words by which the header of a table may name a language: ``de``, ``deu``, ``german``."""
    from translate.lang.data import languages

    language = langcodes.Language.get(code).language or code
    names = languages.get(code.replace("-", "_"), languages.get(language, ("",)))[0]
    three = {word for word in spellings(code) if len(word) == 3}
    words = names.lower().replace(";", " ").replace("(", " ").replace(")", " ").split()
    return frozenset({language, *three, *words})
