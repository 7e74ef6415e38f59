"""Keeps API keys and tokens out of whatever mlkd writes or says."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from types import TracebackType
from typing import Any

_NAME = re.compile(
    r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(_|$)", re.IGNORECASE
)
"""Environment variables of such names hold secrets."""
_LEAST = 8
"""Shorter values are words that would be found everywhere."""
_FORMS = re.compile(
    r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # user:password@host
    r"|\bhf_[A-Za-z0-9]{16,}|\bwandb_v1_\w{16,}"
    r"|(?<=[Bb]earer )[\w.~+/=-]{8,}"
)
_HIDDEN = "***"


def redact(text: str) -> str:
    """Text without the values of secret environment variables and without known token forms."""
    return _hide(text, _secrets())


def redacted(value: Any) -> Any:
    """The same for every text of a JSON-able value."""
    secrets = _secrets()  # once: to read the environment takes longer than to look for them

    def hide(value: Any) -> Any:
        if isinstance(value, str):
            return _hide(value, secrets)
        if isinstance(value, dict):
            return {hide(key): hide(item) for key, item in value.items()}
        return [hide(item) for item in value] if isinstance(value, list | tuple) else value

    return hide(value)


def _secrets() -> list[str]:
    """Values of secret environment variables, long ones first: one may begin with another."""
    named = (value for name, value in os.environ.items() if _NAME.search(name))
    return sorted((value for value in named if len(value) >= _LEAST), key=len, reverse=True)


def _hide(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, _HIDDEN)
    return _FORMS.sub(_HIDDEN, text)


class _Formatter(logging.Formatter):
    """Another formatter's lines, redacted."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        return redact(self._inner.format(record))


def guard_output() -> None:
    """Redact what this process logs, and the traceback it may end with."""
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, _Formatter):
            handler.setFormatter(_Formatter(handler.formatter))
    sys.excepthook = _report


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
