"""Language codes (BCP 47, as ``de``, ``pt-BR``, ``zh-Hans``) and pairs of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated

import langcodes
from pydantic import BeforeValidator

_CODE = r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|\d{3}))?(-([a-z\d]{5,8}|\d[a-z\d]{3}))*"
"""Language, script, region, variants. Only a language is two or three small letters, so that a pair
of codes can be told apart."""
_MODIFIERS = {
    "arabic": "Arab",
    "cyrillic": "Cyrl",
    "devanagari": "Deva",
    "latin": "Latn",
    "valencia": "valencia",
}
"""What stands after the ``@`` of a locale, and the BCP 47 subtag for it."""


def language_code(written: object) -> str:
    """The BCP 47 code of a language in its standard form.

    Locales (``pt_BR``, ``sr@latin``), other upper and lower case, three letters where there is a
    code of two, and replaced codes (``iw``) are understood.

    Raises:
        ValueError: There is no such language.
    """
    if isinstance(written, bool):
        raise ValueError(f"YAML reads {'on' if written else 'no'} as {written}; put it in quotes")
    locale, _, modifier = str(written).partition("@")
    language, *rest = re.split("[-_]", locale)
    rest = [part[1:] if re.fullmatch("r[A-Z]{2}", part) else part for part in rest]  # Android's
    if modifier:
        rest.append(_MODIFIERS.get(modifier, modifier))
    rest.sort(key=lambda part: not (len(part) == 4 and part.isalpha()))  # a script comes first
    tag = "-".join((language, *rest))
    try:
        code = langcodes.standardize_tag(tag) if langcodes.tag_is_valid(tag) else ""
    except ValueError:
        code = ""
    if not re.fullmatch(_CODE, code):
        raise ValueError(f"{written!r} is no language; allowed: BCP 47, as de, pt-BR, zh-Hans")
    return code


Language = Annotated[str, BeforeValidator(language_code)]
"""A BCP 47 code, as ``de``, ``pt-BR``, ``zh-Hans``; ``pt_BR`` and ``sr@latin`` are understood."""


def spellings(code: str) -> list[str]:
    """How files may write a language, its code first: ``pt-BR``, ``pt_BR``, ``pt_br``, ``por``."""
    language = langcodes.Language.get(code)
    modifiers = {script: name for name, script in _MODIFIERS.items()}
    locale = "_".join(filter(None, (language.language, language.territory)))
    found = [code, code.replace("-", "_"), code.lower(), code.lower().replace("-", "_")]
    if language.territory:
        found.append(f"{language.language}-r{language.territory}")  # values-pt-rBR of Android
    if language.script in modifiers:
        found.append(f"{locale}@{modifiers[language.script]}")
    with suppress(LookupError):
        three = language.to_alpha3()
        found += [f"{three}_{language.maximize().script}", three]
    return list(dict.fromkeys(found))


def split_pair(pair: str) -> tuple[str, str]:
    """The two languages of a pair such as ``en-pt-BR``.

    Raises:
        ValueError: It is not clear where the second one starts.
    """
    parts = pair.split("-")
    starts = [i for i, part in enumerate(parts) if i and re.match(r"[a-z]{2,3}([_@]|$)", part)]
    if len(starts) != 1:
        raise ValueError(
            f"{pair!r} is no pair of languages; allowed: two codes, as en-de, en-pt-BR"
        )
    return "-".join(parts[: starts[0]]), "-".join(parts[starts[0] :])


def pair_code(written: object) -> str:
    """A pair of languages in its standard form, as ``en-de``.

    Raises:
        ValueError: It is none.
    """
    first, second = split_pair(str(written))
    return f"{language_code(first)}-{language_code(second)}"


def fill_languages(text: str, languages: dict[str, str], codes: dict[str, str]) -> str:
    """Put languages into the placeholders of a path or of the name of a column.

    Args:
        text: With ``{name}`` for each name in ``languages``, and ``{pair}`` for the first two of
            them in alphabetical order, as OPUS has it (``de-en``, ``en-fr``).
        languages: Codes by the name of their placeholder.
        codes: How the files write a language, where that is not its code.
    """
    written = {name: codes.get(code, code) for name, code in languages.items()}
    written["pair"] = "-".join(sorted(list(written.values())[:2]))
    for name, value in written.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def refuse_unfilled(key: str, text: str, names: Iterable[str]) -> None:
    """Look for placeholders that are not filled in, misspelt ones or such with blanks.

    Args:
        key: What the configuration calls the text.
        text: A path or a label.
        names: Of its placeholders.

    Raises:
        ValueError: It has another one.
    """
    allowed = [f"{{{name}}}" for name in names]
    left = [found for found in re.findall(r"\{[^{}]*\}", text) if found not in allowed]
    if left:
        raise ValueError(f"{key}: {left[0]} is not filled in; allowed: {', '.join(allowed)}")
