"""The defaults of the schemas as options of Hydra's groups: they stand in one place."""

from __future__ import annotations

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
    """Enter the defaults into Hydra's store, and take those out again that were not there."""
    store = ConfigStore.instance()
    entries = [] if f"train_{OPTION}.yaml" in store.repo else list(_entries())
    for group, name, node in entries:
        store.store(group=group or None, name=name, node=node)
    try:
        yield
    finally:
        for group, name, _ in entries:
            place = store.repo[group] if group else store.repo
            place.pop(f"{name}.yaml", None)
            if group and not place:
                del store.repo[group]


def _entries() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Group, option and content of each."""
    yield "", f"train_{OPTION}", _defaults(TrainConfig)
    for group, section in _GROUPS.items():
        yield group, OPTION, _defaults(section)
    # A link has the optimiser of the chain unless it says otherwise.
    optim = {key: f"${{optim.{key}}}" for key in OptimConfig.model_fields}
    for name, settings in known_stages().items():
        yield "stages", f"{name}_{OPTION}", _defaults(settings) | {"stage": name, "optim": optim}


def _defaults(section: type[Section]) -> dict[str, Any]:
    """The fields of a schema that have a default, JSON-able."""
    found = {}
    for name, field in section.model_fields.items():
        if not field.is_required():
            value = field.get_default(call_default_factory=True)
            found[name] = value.model_dump(mode="json") if isinstance(value, Section) else value
    return found
