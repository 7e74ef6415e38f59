"""``python -m mlkd.runs``: what is there, what may go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, at_steps, configure, run_until, tiny_settings, write_corpus

from mlkd.config.commands import RunsConfig
from mlkd.config.schema import TrainConfig
from mlkd.data.module import PairBatch
from mlkd.output.errors import Interrupted, UserError
from mlkd.runs.__main__ import main
from mlkd.runs.inventory import inventory, needed_by, prunable
from mlkd.runs.record import Run, inputs_of, read_record
from mlkd.stages.base import Stage

LINKS = ("assistant", "bottleneck", "recurrent")


@pytest.fixture(scope="module")
def made(
    encoder_folder: Path, finished_assistant: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished chain, one whose last run was removed, and two that were interrupted."""
    from mlkd.recipes.run import run_chain

    folder = tmp_path_factory.mktemp("runs")
    output = shutil.copytree(finished_assistant, folder / "out")
    settings = tiny_settings(encoder_folder, write_corpus(folder / "corpus"), output)
    run_chain(configure(*settings, "seed=2", "stage=bottleneck"))
    shutil.rmtree(*output.glob("runs/bottleneck-*"))
    run_chain(configure(*settings, "stage=bottleneck"))
    run_until(configure(*settings, "stage=recurrent"), 0)
    run_until(configure(*settings, "seed=3", "stage=assistant"), 0)
    return output


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "out")


def seed(folder: Path) -> int:
    return int(json.loads((folder / "run.json").read_text())["identity"]["seed"])


def listed(output: Path) -> dict[tuple[str, int], tuple[str, int]]:
    entries = inventory(output)
    users = needed_by(entries)
    return {(e.link, seed(e.folder)): (e.status, len(users[e.name])) for e in entries}


def test_runs_are_listed_with_what_needs_them(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listed(output) == {
        ("assistant", 0): ("finished", 2),
        ("bottleneck", 0): ("finished", 1),
        ("recurrent", 0): ("interrupted", 0),
        ("assistant", 2): ("finished", 0),
        ("assistant", 3): ("interrupted", 0),
    }
    for entry in inventory(output):
        files = [p for p in entry.folder.rglob("*") if p.is_file()]
        assert entry.size == sum(p.stat().st_size for p in files)
    main(RunsConfig(output_dir=str(output)))
    printed = capsys.readouterr().out
    for entry in inventory(output):
        assert entry.name in printed
        if entry.status == "finished":
            assert f"{entry.means['dev']['sts']:.2f}" in printed
    assert printed.strip().splitlines()[-1] == f"runs: {output / 'runs'}"


def test_prune_removes_what_nothing_needs_and_nothing_else(
    output: Path, tiny: Callable[..., TrainConfig], caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from mlkd.recipes.run import run_chain

    before = listed(output)
    main(RunsConfig(output_dir=str(output), action="prune"))  # nobody to ask
    assert "ask=false removes them" in capsys.readouterr().out
    assert listed(output) == before
    main(RunsConfig(output_dir=str(output), action="prune", ask=False))
    assert listed(output) == {
        ("assistant", 0): ("finished", 1),
        ("bottleneck", 0): ("finished", 0),
    }
    assert "removed 3 of 5 runs" in capsys.readouterr().out
    main(RunsConfig(output_dir=str(output), action="prune", ask=False))
    assert "removed 0 of 2 runs" in capsys.readouterr().out
    caplog.set_level("INFO")
    run_chain(tiny(stage="bottleneck"))
    assert caplog.text.count(": reused (") == 2


def test_prune_keeps_what_a_later_command_asked_for(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain

    def stop(stage: Stage, batch: PairBatch) -> None:
        if getattr(stage.settings, "translation_target", None) == "translation":
            raise Interrupted("SIGTERM")

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        at_steps(patch, {1}, stop)
        with pytest.raises(Interrupted):
            run_chain(tiny(stage="recurrent"))
    run_chain(tiny(stage="bottleneck"))  # all of it is there
    for _ in range(2):  # first the unfinished run goes, which needed the others
        main(RunsConfig(output_dir=str(output), action="prune", ask=False))
        assert {entry.link for entry in inventory(output)} == {"assistant", "bottleneck"}


def test_prune_leaves_running_and_damaged_runs(output: Path) -> None:
    def names() -> set[tuple[str, int | None]]:
        return {(e.link, seed(e.folder)) for e, _ in prunable(output, inventory(output))}

    assert names() == {("recurrent", 0), ("assistant", 2), ("assistant", 3)}
    (recurrent,) = output.glob("runs/recurrent-*")
    lock = recurrent.with_name(f".{recurrent.name}.lock")
    lock.write_text(json.dumps({"host": "elsewhere", "machine": "x", "pid": 1}))
    assert names() == {("assistant", 3)}  # what is running may be about to need the others
    lock.unlink()
    (recurrent / "run.json").write_text("{")
    assert {e.status for e in inventory(output) if e.folder == recurrent} == {"damaged"}
    assert recurrent not in {e.folder for e, _ in prunable(output, inventory(output))}


def test_no_runs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs in"):
        main(RunsConfig(output_dir=str(tmp_path)))


def test_the_command_answers(output: Path, command: Command) -> None:
    done = command("mlkd.runs", "prune", f"output_dir={output}")
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last == f"removed 0 of 5 runs (0.0 MiB) from {output / 'runs'}"


def test_a_new_run_says_what_makes_it_another_one(tmp_path: Path) -> None:
    def made(identity: dict[str, Any]) -> Run:
        return Run(tmp_path, "recurrent", "sentence", identity)

    assert made({"seed": 0}).state({}) == ("run", "no such run yet")
    known = made({"seed": 0, "student": {"layers": 4, "trim": None}})
    known.folder.mkdir()
    known.write("finished")
    for changed, keys in (
        ({"seed": 1, "student": {"layers": 4, "trim": None}}, "seed"),
        ({"seed": 0, "student": {"layers": 5, "trim": {}}}, "student.layers, student.trim"),
        ({"seed": 0, "student": {"layers": 4, "trim": {}}}, "student.trim"),
    ):
        _, reason = made(changed).state({})
        assert reason == f"no such run yet; {known.id} differs in {keys}"


def test_a_record_of_an_earlier_version_is_understood(tmp_path: Path) -> None:
    folder = tmp_path / "contrastive-0"
    folder.mkdir()
    old = {"id": "contrastive-0", "stage": "contrastive", "status": "finished", "student": "a",
           "files": {"x": "b"}}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(old))
    record = read_record(folder)
    assert record["link"] == "contrastive"
    assert record["outputs"] == {"student": {"content": "a", "files": {"x": "b"}}}
    assert inputs_of(record) == {}


def test_only_what_is_shown_is_measured(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network disk takes long to tell the size of every file."""
    measured: list[str] = []

    def spying(folder: Path) -> int:
        measured.append(folder.name)
        return 0

    monkeypatch.setattr("mlkd.runs.inventory.folder_bytes", spying)
    found = [entry.name for entry, _ in prunable(output, inventory(output))]
    assert measured == []
    main(RunsConfig(action="prune", output_dir=str(output), ask=False))
    assert measured == found
    assert (len(found), len(inventory(output))) == (3, 2)
