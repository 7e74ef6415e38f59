"""Multilingual knowledge distillation: small cross-lingual sentence encoders.

``mlkd.load``, ``configure``, ``train``, ``evaluate``, ``export``, ``pairs`` and ``mine`` are the
Python door (:mod:`mlkd.api`); each command, ``python -m mlkd.<name>``, is a module of its own.
Importing mlkd imports nothing else and changes nothing in the process.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlkd.api import Evaluated as Evaluated
    from mlkd.api import Exported as Exported
    from mlkd.api import Result as Result
    from mlkd.api import UserError as UserError
    from mlkd.api import configure as configure
    from mlkd.api import evaluate as evaluate
    from mlkd.api import export as export
    from mlkd.api import load as load
    from mlkd.api import mine as mine
    from mlkd.api import pairs as pairs
    from mlkd.api import train as train

__version__ = "0.1.0"
__all__ = [
    "Evaluated",
    "Exported",
    "Result",
    "UserError",
    "configure",
    "evaluate",
    "export",
    "load",
    "mine",
    "pairs",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("mlkd.api"), name)
    raise AttributeError(f"module mlkd has no attribute {name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps a function its name when the module of the command that is called so is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
