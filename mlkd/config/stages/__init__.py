"""Settings of the stages: one file a stage, free of torch.

Stages of other packages are found through the entry point group ``mlkd.stages``, whose entries name
a class of settings.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny
from pydantic_core import PydanticCustomError

from mlkd.config.stages.base import KNOWN, StageSettings

__all__ = ["NO_LINK", "AnyStage", "StageSettings", "known_stages"]

NO_LINK = "no_link"
"""Type of the error that settings are of a link that the recipe does not have."""


@cache
def _load() -> None:
    """Import the settings of every stage that is installed."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    for entry in entry_points(group="mlkd.stages"):
        entry.load()


def known_stages() -> dict[str, type[StageSettings]]:
    """Settings of each stage by its name."""
    _load()
    return KNOWN


def _chosen(value: Any) -> Any:
    """Validate a link by the settings of its stage."""
    if not isinstance(value, dict):
        return value
    if "stage" not in value:
        raise PydanticCustomError(NO_LINK, "the recipe has no such link")
    name = value["stage"]
    if not isinstance(name, str) or name not in known_stages():
        allowed = ", ".join(sorted(known_stages()))
        raise ValueError(f"stage={name}: no such stage; allowed: {allowed}")
    return known_stages()[name].model_validate(value)


AnyStage = SerializeAsAny[Annotated[StageSettings, BeforeValidator(_chosen)]]
"""Settings of a link, of the class that its ``stage`` names."""
