"""Defaults stand in the schemas alone, and every key can be set on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_origin

import pytest
import yaml
from conftest import configure
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from pydantic import BaseModel

from mlkd.config.bench import BenchmarkConfig
from mlkd.config.compose import CONF_DIR
from mlkd.config.defaults import _COMMANDS, _GROUPS, stored_defaults
from mlkd.config.losses import LossConfig
from mlkd.config.schema import TrainConfig
from mlkd.config.section import schemas_in
from mlkd.config.stages import StageSettings, known_stages
from mlkd.config.sweeps import LocalConfig, SlurmConfig, SweepConfig

SCHEMAS = (
    {f"{name}.yaml": schema for name, schema in _COMMANDS.items()}
    | {"benchmark.yaml": BenchmarkConfig}
    | {f"{group}/*.yaml": schema for group, schema in _GROUPS.items()}
    | {f"stages/{name}.yaml": schema for name, schema in known_stages().items()}
    | {"link/*.yaml": StageSettings, "loss/*.yaml": LossConfig, "sweep/*.yaml": SweepConfig}
    | {"hydra/launcher/local.yaml": LocalConfig, "hydra/launcher/slurm.yaml": SlurmConfig}
    | {"recipe/*.yaml": TrainConfig, "experiment/*.yaml": TrainConfig, "debug/*.yaml": TrainConfig}
)
"""What each file of ``conf/`` sets values of."""


def repeated(values: dict[str, Any], schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Keys whose value is the default of the schema; what has a free name is told apart by it."""
    for key, value in values.items():
        if (field := schema.model_fields.get(key)) is None:
            continue
        inner, named = schemas_in(field.annotation), get_origin(field.annotation) is dict
        if key == "stages":  # whose stage stands in the recipe's list of defaults
            for name, link in value.items():
                yield from repeated(link, StageSettings, f"{prefix}{key}.{name}.")
        elif isinstance(value, dict) and len(inner) == 1 and not named:
            yield from repeated(value, inner[0], f"{prefix}{key}.")
        elif not field.is_required():
            if value == plain(field.get_default(call_default_factory=True)):
                yield prefix + key


def plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def test_every_file_has_a_schema() -> None:
    known = {path for pattern in SCHEMAS for path in CONF_DIR.glob(pattern)}
    rest = {str(path.relative_to(CONF_DIR)) for path in {*CONF_DIR.rglob("*.yaml")} - known}
    assert {name.partition("/")[0] for name in rest} == {"ablation", "hydra"}, rest


@pytest.mark.parametrize("pattern", SCHEMAS)
def test_no_option_repeats_a_default(pattern: str) -> None:
    paths = [*CONF_DIR.glob(pattern)]
    assert paths
    for path in paths:
        values = yaml.safe_load(path.read_text())
        found = {*repeated(values, SCHEMAS[pattern])}
        # An option of student may have /schema@student.trim, which stands in a list only once.
        found -= {"student.trim.languages", "student.trim.min_share"}
        # What tells options apart is written down in each; baselines are scored in fp32 whatever
        # an experiment says.
        assert not found - {"kind", "eval.precision"}, (path.name, found)


def test_every_key_of_a_link_can_be_set_plainly() -> None:
    for name in configure().stages:
        for setting in ("dropout=0.25", "optim.weight_decay=0.5", "max_steps=7"):
            link = configure(f"stages.{name}.{setting}").stages[name]
            key, _, value = setting.partition("=")
            found = link.optim.weight_decay if key.startswith("optim") else getattr(link, key)
            assert found == float(value)


def test_links_have_the_optimiser_of_the_chain_unless_they_say_otherwise() -> None:
    stages = configure("optim.decay=cosine", "stages.recurrent.optim.decay=linear").stages
    found = {name: link.optim.decay for name, link in stages.items()}
    assert found == dict.fromkeys(stages, "cosine") | {"recurrent": "linear"}


def test_limits_hold_for_every_link() -> None:
    stages = configure("limits.max_steps=5", "limits.batch_size=8", "stages.recurrent.max_steps=3")
    steps = {name: link.max_steps for name, link in stages.stages.items()}
    assert steps == dict.fromkeys(steps, 5) | {"recurrent": 3}
    assert {link.batch_size for link in stages.stages.values()} == {8}


def test_the_store_is_afterwards_what_it_was(tmp_path: Path) -> None:
    store = ConfigStore.instance()
    configure()  # Hydra's own entries are there by now
    before = {*store.list(""), *store.list("hydra")}
    for _ in range(2):
        with stored_defaults():
            with stored_defaults():
                pass
            assert f"{next(iter(known_stages()))}_schema.yaml" in store.list("stages")
        assert {*store.list(""), *store.list("hydra")} == before


def test_entries_of_the_caller_that_are_called_like_ours_stay_its_own() -> None:
    store = ConfigStore.instance()
    configure()  # Hydra's own entries are there by now
    try:
        store.store(name="train_schema", node={"mine": 1})
        store.store(group="data", name="schema", node={"mine": 2})
        assert configure("seed=1").data == configure().data
        assert store.load("train_schema.yaml").node == {"mine": 1}
        assert store.load("data/schema.yaml").node == {"mine": 2}
    finally:
        del store.repo["train_schema.yaml"], store.repo["data"]


def test_resolvers_of_the_caller_are_its_own_again() -> None:
    """Also those whose names Hydra takes."""
    known = BaseContainer._resolvers
    before = dict(known)
    OmegaConf.register_new_resolver("now", lambda pattern: "mine", replace=True)
    try:
        configure("seed=1")
        assert not OmegaConf.has_resolver("mlkd.spoken")
        assert OmegaConf.create({"x": "${now:%Y}"}).x == "mine"
    finally:
        known.clear()
        known.update(before)


def test_threads_take_turns() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: configure(f"seed={seed}").seed, range(8)))
    assert found == list(range(8))
