"""Packages that only some commands need: extras of the installation."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from mlkd.output.errors import UserError


def missing(package: str, extra: str, what: str) -> UserError:
    """The line that ``what`` needs a package of an extra, which is not installed."""
    command = f"pip install -c constraints.txt -e '.[{extra}]'"
    return UserError(f"{what} needs the package {package}; {command}")


def need(packages: Iterable[str], extra: str, what: str) -> None:
    """Refuse what needs packages of an extra that are not installed, without importing them.

    Raises:
        UserError: One of them is missing.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise missing(package, extra, what)
