"""Formats of parallel text: ``format: x`` of a corpus is read by the module ``x`` of this folder.

A module has ``read(wanted, files)``, which yields pairs and rejected rows. Those that may hold
labelled text have ``rows(wanted, columns, files)``, which yields any columns with their places.
What else one may have is how its files are found: ``SUFFIXES``, if a path may be a folder of such
files; ``TWO_FILES``, if the translations are at ``target_path``; ``find(wanted, root,
allow_download)``, if neither will do; and ``count(wanted, files)``, if rows are quick to count.

A new format is a module here, its name and the keys that it reads in
:class:`~mlkd.config.inputs.CorpusConfig`, and its line in ``mlkd/data/README.md``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def module_of(name: str) -> Any:
    """The module that reads a format; with it comes only what that format needs."""
    return import_module(f"{__name__}.{name}")
