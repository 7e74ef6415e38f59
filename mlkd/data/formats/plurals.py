"""Which of the plural forms of a message stands for a number."""

from __future__ import annotations

import re
from gettext import c2py

from translate.lang.data import languages

ONE, MANY = 1, 5
"""Numbers that stand for the singular and for the plural of English. Of 5 things languages with
further forms use the one of the general plural (Russian 5 файлов, Arabic 5 ملفات)."""

_HEADER = re.compile(r"nplurals\s*=\s*(\d+)\s*;\s*plural\s*=\s*([^;]+)")
_QT = {
    "cy": (5, "n==0 ? 0 : n==1 ? 1 : n>=2 && n<=5 ? 2 : n==6 ? 3 : 4"),
    "ga": (3, "n==1 ? 0 : n==2 ? 1 : 2"),
    "lv": (3, "n%10==1 && n%100!=11 ? 0 : n!=0 ? 1 : 2"),
    "mk": (3, "n%10==1 ? 0 : n%10==2 ? 1 : 2"),
    **dict.fromkeys(("fil", "tl"), (3, "n<=1 ? 0 : n%10==4 || n%10==6 || n%10==9 ? 1 : 2")),
}
"""Rules of Qt Linguist that differ from those of gettext."""
_CALLED = {"no": "nb", "tl": "fil", "zh": "zh_CN"}
"""Languages under the names that translate-toolkit has for them."""


def gettext_form(header: str | None, language: str, forms: int, number: int) -> int | None:
    """Index of the form for a number in a message of a gettext catalogue.

    Args:
        header: ``Plural-Forms`` of the catalogue.
        language: BCP 47 code, for catalogues without a rule. With more than two forms that does
            not help: catalogues order them in different ways.
        forms: How many forms the message has.
        number: What is counted.

    Returns:
        None if there is no rule for so many forms.
    """
    found = _HEADER.search(header or "")
    if found:
        return _form(int(found[1]), found[2], forms, number)
    if forms == 1:
        return 0
    return _form(*_rule(language), forms, number) if forms == 2 else None


def qt_form(language: str, forms: int, number: int) -> int | None:
    """The same for a message of Qt Linguist, which has one rule a language.

    Languages with a single form there have two in gettext: Turkish, Hungarian, Persian, Georgian.
    """
    if forms == 1:
        return 0
    rule = _QT.get(re.split("[-_]", language)[0].lower()) or _rule(language)
    return _form(*rule, forms, number)


def _rule(language: str) -> tuple[int, str]:
    locale = language.replace("-", "_")
    language = locale.partition("_")[0]
    names = (locale, language, _CALLED.get(language, language))
    known = next((languages[name] for name in names if name in languages), None)
    return (known[1], known[2]) if known else (0, "0")


def _form(expected: int, rule: str, forms: int, number: int) -> int | None:
    if expected != forms:
        return None
    try:
        index: int = c2py(rule.strip())(number)
    except (ValueError, ArithmeticError, RecursionError):
        return None
    return index if 0 <= index < forms else None
