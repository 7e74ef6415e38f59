"""The defaults of the schemas as options of Hydra's groups: they stand in one place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.config_store import ConfigStore

from mlkd.config.inputs import DataConfig, EvalConfig
from mlkd.config.schema import TrainConfig
from mlkd.config.section import Section
from mlkd.config.stages import known_stages
from mlkd.config.student import InitConfig, StudentConfig
from mlkd.config.training import LoggerConfig, OptimConfig, TrainerConfig

OPTION = "schema"
"""The option of a group that holds what its schema says where nothing else is said."""
_GROUPS: dict[str, type[Section]] = {
    "student": StudentConfig,
    "init": InitConfig,
    "data": DataConfig,
    "optim": OptimConfig,
    "trainer": TrainerConfig,
    "logger": LoggerConfig,
    "eval": EvalConfig,
}


@contextmanager
def stored_defaults() -> Iterator[None]:
    """Enter the defaults into Hydra's store; afterwards it is what it was before."""
    store = ConfigStore.instance()
    before, store.repo = store.repo, copy.deepcopy(store.repo)
    try:
        store.store(name=f"train_{OPTION}", node=_defaults(TrainConfig))
        for group, section in _GROUPS.items():
            store.store(group=group, name=OPTION, node=_defaults(section))
        for name, settings in known_stages().items():
            # A link has the optimiser of the chain unless it says otherwise.
            optim = {key: f"${{optim.{key}}}" for key in OptimConfig.model_fields}
            node = _defaults(settings) | {"stage": name, "optim": optim}
            store.store(group="stages", name=f"{name}_{OPTION}", node=node)
        yield
    finally:
        store.repo = before


def _defaults(section: type[Section]) -> dict[str, Any]:
    """The fields of a schema that have a default, JSON-able."""
    found = {}
    for name, field in section.model_fields.items():
        if not field.is_required():
            value = field.get_default(call_default_factory=True)
            found[name] = value.model_dump(mode="json") if isinstance(value, Section) else value
    return found
