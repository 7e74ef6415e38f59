"""Defaults stand in the schemas alone, and every key can be set on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import configure
from hydra.core.config_store import ConfigStore

from mlkd.config.compose import CONF_DIR
from mlkd.config.defaults import _GROUPS, stored_defaults
from mlkd.config.stages import known_stages


@pytest.mark.parametrize("group", [*_GROUPS])
def test_no_option_repeats_a_default(group: str) -> None:
    fields = _GROUPS[group].model_fields
    options = [*(CONF_DIR / group).glob("*.yaml")]
    assert options
    for path in options:
        for key, value in yaml.safe_load(path.read_text()).items():
            known = key in fields and not fields[key].is_required()
            usual = fields[key].get_default(call_default_factory=True) if known else object()
            # What tells options apart is written down in each of them.
            assert value != usual or key in {"kind"}, (path.name, key)


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
