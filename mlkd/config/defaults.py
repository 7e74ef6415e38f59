"""The defaults of the schemas as options of Hydra's groups: they stand in one place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.config_store import ConfigStore

from mlkd.config import commands
from mlkd.config.bench import BaselinesConfig
from mlkd.config.evaluation import EvalConfig
from mlkd.config.inputs import CorpusConfig, DataConfig, EncoderConfig
from mlkd.config.losses import LossConfig
from mlkd.config.schema import TrainConfig
from mlkd.config.section import Section, schemas_in
from mlkd.config.stages import known_stages
from mlkd.config.student import (
    AssistantConfig,
    InitConfig,
    StudentConfig,
    TrimConfig,
    VocabularyConfig,
)
from mlkd.config.sweeps import LocalConfig, OptunaConfig, SlurmConfig
from mlkd.config.training import LoggerConfig, OptimConfig, TrainerConfig

OPTION = "schema"
"""The option of a group that holds what its schema says where nothing else is said."""
_PROVIDER = "mlkd"
"""Who made an entry of the store."""
_COMMANDS: dict[str, type[Section]] = {
    "train": TrainConfig,
    "baselines": BaselinesConfig,
    "evaluate": commands.EvaluateConfig,
    "export": commands.ExportConfig,
    "mine": commands.MineConfig,
    "pairs": commands.PairsConfig,
    "report": commands.ReportConfig,
    "runs": commands.RunsConfig,
}
_GROUPS: dict[str, type[Section]] = {
    "teacher": EncoderConfig,
    "assistant": AssistantConfig,
    "student": StudentConfig,
    "init": InitConfig,
    "data": DataConfig,
    "optim": OptimConfig,
    "trainer": TrainerConfig,
    "logger": LoggerConfig,
    "eval": EvalConfig,
}
_BLOCKS: dict[str, type[Section]] = {
    "encoder": EncoderConfig,
    "vocabulary": VocabularyConfig,
    "trim": TrimConfig,
    "corpus": CorpusConfig,
    "optuna": OptunaConfig,
    "local": LocalConfig,
    "slurm": SlurmConfig,
    **{term: schemas_in(field.annotation)[0] for term, field in LossConfig.model_fields.items()},
}
"""What stands in a section of some option: ``/schema@<section>: <name>`` in its list."""


@contextmanager
def stored_defaults() -> Iterator[None]:
    """Enter the defaults into Hydra's store; entries of the same names come back afterwards."""
    store = ConfigStore.instance()
    known = store.repo.get(f"train_{OPTION}.yaml")
    if known is not None and known.provider == _PROVIDER:
        yield
        return
    before = []
    for group, name, node in _entries():
        place = store.repo.get(group, {}) if group else store.repo
        before.append((group, f"{name}.yaml", place.get(f"{name}.yaml")))
        store.store(group=group or None, name=name, node=node, provider=_PROVIDER)
    try:
        yield
    finally:
        for group, file, entry in before:
            place = store.repo[group] if group else store.repo
            del place[file]
            if entry is not None:
                place[file] = entry
            elif not place:
                del store.repo[group]


def _entries() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Group, option and content of each."""
    for name, section in _COMMANDS.items():
        yield "", f"{name}_{OPTION}", _defaults(section)
    for name, section in _BLOCKS.items():
        # A mapping with names of its own is there once something is in it: +<section>.codes.de=ger
        yield OPTION, name, {key: x for key, x in _defaults(section).items() if x != {}}
    # An encoder whose folder is to be given; ??? in a file would leave the null as it is.
    yield OPTION, "folder", _defaults(EncoderConfig) | {"path": "???"}
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
