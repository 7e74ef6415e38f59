"""Trees that are kept: those of Hydra's own compose, whatever was composed before."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Command
from hydra import compose
from hydra._internal.hydra import Hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlkd.config.command_line import _completed, _options
from mlkd.config.compose import composing
from mlkd.config.trees import compose_tree

VALUES = (
    ["student=minilm_tiny", "seed=3", "student.layers=3"],
    ["student.layers=1", "student=minilm_tiny", "++student.new={a: [1]}", "~eval.sets"],
    ["student=minilm_tiny"],
    ["student={layers: 7}"],
    ["loss@stages.contrastive.loss=pair_mse_ce", "stages.contrastive.lr=1e-3"],
    ["data.root='${oc.env:HOME}'", "+data.corpora.more={format: tsv}", "hydra.verbose=true"],
)
REFUSED = ("student.botleneck=1", "student=none", "+seed=1", "~student.new", "seed=1,2", "x@y=1")


def test_a_kept_tree_is_hydras_and_never_changed() -> None:
    with composing():
        wanted = [compose("train", line) for line in VALUES]
        for _ in range(2):
            for line, tree in zip(VALUES, wanted, strict=True):
                found = compose_tree("train", line)
                assert OmegaConf.to_container(found) == OmegaConf.to_container(tree)
                assert OmegaConf.is_struct(found) is OmegaConf.is_struct(tree) is True
                found.student.layers = 99
                found.seed = 99


@pytest.mark.parametrize("line", REFUSED)
def test_what_hydra_refuses_is_refused_in_its_words(line: str) -> None:
    with composing():
        compose_tree("train", [])
        with pytest.raises((HydraException, OmegaConfBaseException)) as wanted:
            compose("train", [line])
        with pytest.raises(type(wanted.value)) as found:
            compose_tree("train", [line])
    assert str(found.value) == str(wanted.value)


@pytest.mark.parametrize(("group", "name"), [("data", "multi30k"), ("eval", "sts2017")])
def test_an_option_among_others_is_what_it_is_alone(group: str, name: str) -> None:
    with composing():
        tree = compose("train", [f"{group}={name}"])
    alone = OmegaConf.to_container(tree[group], resolve=True)
    assert _options()[group][name] == _completed(group, alone)


@pytest.mark.parametrize(
    ("words", "times"), [(["seed=-1"], 1), (["seed=-1", "hydra.output_subdir=null"], 2)]
)
def test_a_command_composes_once_unless_a_setting_of_hydras_is_given(
    words: list[str], times: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[Any] = []
    original = Hydra.compose_config

    def counted(*args: Any, **more: Any) -> Any:
        composed.append(args)
        return original(*args, **more)

    monkeypatch.setattr(Hydra, "compose_config", counted)
    done = command("mlkd.evaluate", "model=x", *words)
    assert done.returncode == 2
    assert len(composed) == times
