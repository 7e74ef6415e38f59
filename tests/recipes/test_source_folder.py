"""A student that copies a folder of its own, such as a larger student."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import configure, new_student, tiny_settings, wordpiece, write_encoder

from mlkd.config.schema import TrainConfig
from mlkd.deploy.source import assistant_of
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.encoders.folder import load_folder
from mlkd.encoders.words import whole_table
from mlkd.output.errors import UserError
from mlkd.recipes.identity import link_keys
from mlkd.recipes.run import run_chain
from mlkd.runs.inventory import inventory, needed_by

Tiny = Callable[..., TrainConfig]


def test_it_copies_layers_and_table_of_a_trained_student(
    tiny: Tiny, chain: dict[str, Path]
) -> None:
    larger = backbone_of(load_folder(chain["contrastive"] / "student"))
    config = tiny("student.layers=1", "student.bottleneck=3", f"init.source={chain['contrastive']}")
    start = backbone_of(new_student(config))
    (copied,) = layers(start)
    for name, weight in layers(larger)[-1].state_dict().items():
        assert torch.equal(copied.state_dict()[name], weight)
    # Three numbers a row are the best that is to be had of a table of rank four.
    wide, narrow = whole_table(larger), whole_table(start)
    error = (wide - narrow).norm() / wide.norm()
    assert wide.shape == narrow.shape and 0 < error < 0.7
    whole = tiny("student.layers=1", f"init.source={chain['contrastive'] / 'student'}")
    torch.testing.assert_close(whole_table(backbone_of(new_student(whole))), wide)


def test_its_runs_are_reused_wherever_the_folder_is_and_made_again_when_it_changes(
    tiny: Tiny, chain: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    larger = shutil.copytree(chain["contrastive"] / "student", tmp_path / "larger")
    asked = ["student.layers=1", f"init.source={larger}"]
    run_chain(tiny(*asked, stage="bottleneck"))
    key = link_keys(tiny(*asked))["bottleneck"]
    caplog.set_level("INFO")
    run_chain(tiny(*asked[:1], f"init.source={shutil.move(larger, tmp_path / 'moved')}",
                   stage="bottleneck"))  # fmt: skip
    assert caplog.text.count("bottleneck: reused (") == 1
    shutil.copytree(chain["recurrent"] / "student", larger)
    caplog.clear()
    run_chain(tiny(*asked, stage="bottleneck"))
    assert caplog.text.count("bottleneck: ran (") == 1
    assert link_keys(tiny(*asked))["bottleneck"] != key


def test_the_larger_student_stays_and_the_assistant_is_found(
    tiny: Tiny, chain: dict[str, Path], tmp_path: Path
) -> None:
    asked = tiny("student.layers=1", f"init.source={chain['contrastive']}", stage="bottleneck")
    run_chain(asked)
    runs = {run.name: run for run in inventory(tmp_path / "out")}
    (smaller,) = (
        run for run in runs.values() if run.needs and chain["contrastive"].name in run.needs
    )
    assert smaller.link == "bottleneck"
    assert smaller.name in needed_by([*runs.values()])[chain["contrastive"].name]
    assert assistant_of(smaller.folder) == chain["assistant"] / "student"


def test_cells_that_copy_a_folder_share_the_assistant(tiny: Tiny, chain: dict[str, Path]) -> None:
    usual, other = tiny(), tiny(f"init.source={chain['contrastive']}")
    one, two = link_keys(usual), link_keys(other)
    assert [name for name in one if one[name] == two[name]] == [None, "assistant"]


@pytest.mark.parametrize("key", ["init.source", "teacher.path", "+assistant.encoder.path"])
def test_a_folder_is_the_same_cell_however_it_is_written(
    key: str, tiny: Tiny, encoder_folder: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(encoder_folder.parent)
    more = ["assistant.vocabulary=null", "assistant.train=false"] if "assistant" in key else []
    given = [*more, f"{key}={encoder_folder}", f"data.root={corpus}", f"eval.root={corpus}"]
    near = os.path.relpath(corpus)
    other = [*more, f"{key}={encoder_folder.name}", f"data.root={near}", f"eval.root={near}"]
    assert link_keys(tiny(*other)) == link_keys(tiny(*given))


def test_another_tokenizer_is_refused_before_anything_is_trained(
    encoder_folder: Path, corpus: Path, tmp_path: Path
) -> None:
    other = write_encoder(tmp_path / "other", wordpiece(["zebra qux"]), depth=2)
    usual = tiny_settings(encoder_folder, corpus, tmp_path / "out")
    known = [word for word in usual if not word.startswith("stages.")]
    message = "init.source, for the link layers: live encoder: its tokenizer treats text"
    with pytest.raises(UserError, match=message):
        run_chain(configure("recipe=layerwise", "stage=layers", *known, f"init.source={other}"))
    assert not list((tmp_path / "out").glob("runs/*"))


def test_what_cannot_be_copied_is_one_line(
    tiny: Tiny, chain: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/run.json").write_text("{}")
    for given, message in (
        ("techer", "init.source=techer: no such folder; allowed: scratch, base, teacher, or the "),
        (str(tmp_path / "out"), "no sentence-transformers folder"),
        (str(tmp_path / "empty"), "init.source=.*empty: a run without a student yet"),
        (f"{chain['contrastive']} student.layers=3", "student.layers=3: the backbone has 2 layers"),
    ):
        source, *more = given.split()
        with pytest.raises(UserError, match=message):
            run_chain(tiny(f"init.source={source}", *more))
