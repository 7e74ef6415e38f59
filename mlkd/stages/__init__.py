"""The stages: how one training learns, one LightningModule each.

Their settings are in :mod:`mlkd.config.stages`, one file a stage too.
"""

from __future__ import annotations

import importlib

from mlkd.config.stages import StageSettings
from mlkd.stages.base import Stage


def stage_of(settings: StageSettings) -> type[Stage]:
    """The class whose settings these are."""
    module, _, name = settings.implementation.partition(":")
    found: type[Stage] = getattr(importlib.import_module(module), name)
    return found
