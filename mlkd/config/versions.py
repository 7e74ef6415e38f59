"""The versions that code declares at its settings: what a change of code does to results."""

from __future__ import annotations

from typing import Any, get_args

from mlkd.config.schema import TrainConfig
from mlkd.config.section import Section
from mlkd.config.stages import StageSettings, known_stages


def code_versions() -> dict[str, int]:
    """Version of the code behind each section of a training, by the section's class."""
    return {kind.__name__: kind.version for kind in _sections(TrainConfig) if kind.version}


def _sections(annotation: Any) -> set[type[Section]]:
    """Sections that a type may hold, at any depth."""
    found: set[type[Section]] = set()
    kinds = known_stages().values() if annotation is StageSettings else (annotation,)
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Section):
            found.add(kind)
            for field in kind.model_fields.values():
                found |= _sections(field.annotation)
    return found.union(*map(_sections, get_args(annotation)))
