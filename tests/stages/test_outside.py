"""A stage of another package: trained, resumed, restored, handed over, reported like the others."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import configure, run_until, tiny_settings, write_corpus
from safetensors.torch import load_file

from mlkd.config import stages
from mlkd.config.schema import TrainConfig
from mlkd.output.errors import UserError

LINK = (
    "+stages.toy={stage:toy,inputs:{start:recurrent,target:assistant},epochs:9,batch_size:16,"
    "lr:0.01,max_steps:6}"
)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if a package with an entry point were installed."""
    package = shutil.copytree(Path(__file__).with_name("toy"), tmp_path / "site")
    known = package / "toy_stage-1.0.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-stage\nVersion: 1.0\n")
    (known / "entry_points.txt").write_text("[mlkd.stages]\ntoy = toy_settings:ToySettings\n")
    monkeypatch.syspath_prepend(package)
    stages._load.cache_clear()
    yield
    stages.KNOWN.pop("toy", None)
    for module in ("toy_settings", "toy_stage"):
        sys.modules.pop(module, None)


@pytest.fixture
def settings(
    toy: None, encoder_folder: Path, finished_chain: Path, tmp_path: Path
) -> Callable[..., TrainConfig]:
    """Chains that end with the toy stage, in an output folder with the links before it."""
    corpus = write_corpus(tmp_path / "corpus")

    def build(name: str, *overrides: str) -> TrainConfig:
        output = tmp_path / name
        if not output.exists():
            shutil.copytree(finished_chain, output)
        given = tiny_settings(encoder_folder, corpus, output)
        return configure("stage=toy", LINK, *given, *overrides)

    return build


def finished(output: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Record of the toy's run, and the tensors of its outputs."""
    (folder,) = (output / "runs").glob("toy-*")
    tensors = load_file(folder / "student" / "model.safetensors")
    tensors |= load_file(folder / "map" / "map.safetensors")
    return json.loads((folder / "run.json").read_text()), tensors


def test_a_stage_from_outside_is_a_stage_like_any_other(
    settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain
    from mlkd.reporting.collect import collect

    run_chain(settings("whole"))
    record, tensors = finished(tmp_path / "whole")
    assert (record["link"], record["stage"], record["status"]) == ("toy", "toy", "finished")
    assert sorted(record["outputs"]) == ["map", "student"]
    assert {"start", "target"} == record["inputs"].keys()
    curve = [point["dev/closeness"] for point in record["training"]["curve"]]
    assert record["training"]["best"]["dev/closeness"] == max(curve)
    assert len(set(curve)) == len(curve) > 2  # the map learns

    run_until(settings("parts"), 3)  # in the third step, which is the map's
    checkpoint = next((tmp_path / "parts/runs").glob("toy-*/last.ckpt"))
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert {"map.weight", "map.bias"} < state.keys()
    assert not any("live" in name for name in state)
    run_chain(settings("parts"))
    again, resumed = finished(tmp_path / "parts")
    assert again["training"]["curve"] == record["training"]["curve"]
    assert resumed.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(resumed[name], value), name

    cells = collect([str(tmp_path / "whole")])
    (cell,) = [cell for cell in cells if cell.record.get("link") == "toy"]
    assert cell.measured["scores"]
    assert [link.name.split("-")[0] for link in cell.links] == [
        "assistant", "bottleneck", "recurrent", "toy",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_best_weights_are_those_of_all_modules(
    settings: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain
    from mlkd.training.best import KeepBest

    maps, original = {}, KeepBest.on_validation_end

    def watched(self: KeepBest, trainer: Any, module: Any) -> None:
        if hasattr(module, "map"):
            maps[trainer.global_step] = module.map.weight.detach().clone()
        original(self, trainer, module)

    monkeypatch.setattr(KeepBest, "on_validation_end", watched)
    growing = "+stages.toy.optim={warmup:1.0}"  # so that the map gets worse in the end
    run_chain(settings("worse", "+stages.toy.map_rate=300", growing))
    record, tensors = finished(tmp_path / "worse")
    step = int(record["training"]["best"]["step"])
    assert step < max(maps)
    assert torch.equal(tensors["weight"], maps[step])
    assert not torch.equal(tensors["weight"], maps[max(maps)])


def test_another_output_can_be_an_input(settings: Callable[..., TrainConfig]) -> None:
    from mlkd.recipes.recipe import Made, links

    more = LINK.replace("+stages.toy", "+stages.more").replace("target:assistant", "target:toy.map")
    chain = {link.name: link for link in links(settings("any", more, "stage=more"))}
    assert chain["more"].inputs["target"] == Made("toy", "map")
    assert list(chain) == ["assistant", "bottleneck", "recurrent", "toy", "more"]


def test_an_unknown_stage_is_named(settings: Callable[..., TrainConfig]) -> None:
    with pytest.raises(UserError, match=r"stage=toi: no such stage; allowed: .*toy"):
        settings("any", "stages.toy.stage=toi")
