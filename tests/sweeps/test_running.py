"""What runs the cells of a sweep on this machine."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from conftest import Command, tiny_settings
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mlkd.config.compose import composing
from mlkd.config.sweeps import LocalConfig
from mlkd.reporting.collect import collect
from mlkd.sweeps.driver import print_outcome
from mlkd.sweeps.grid import make_cells, read_request
from mlkd.sweeps.job import JobFailed, run_job, write_job
from mlkd.sweeps.local import _environment, _gpus, run_in_processes
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.search import search
from mlkd.sweeps.tree import Job, make_jobs

GRID = ["sweep=bottleneck_recurrence", "student.bottleneck=4,8", "student.recurrence=1"]


def plan(*overrides: str) -> list[Job]:
    with composing():
        cells, _ = make_cells(read_request(overrides))
    return make_jobs(cells)


@pytest.fixture
def tiny_overrides(encoder_folder: Path, corpus: Path, tmp_path: Path) -> list[str]:
    """A command line with outputs in ``tmp_path / "out"``."""
    return tiny_settings(encoder_folder, corpus, tmp_path / "out", 3)


def the_record(output: Path) -> dict[str, Any]:
    (path,) = (output / "multirun").glob("*/sweep.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def runs(output: Path) -> dict[str, float]:
    return {p.parent.name: p.stat().st_mtime for p in (output / "runs").glob("*/run.json")}


def test_a_sweep_runs_shared_links_once_and_only_what_is_missing_again(
    encoder_folder: Path, corpus: Path, tmp_path: Path, command: Command
) -> None:
    """In this process, by Hydra's name ``basic``; one cell fails, then its cause goes away."""
    output = tmp_path / "out"
    overrides = [*tiny_settings(encoder_folder, corpus, output, 3), "student.layers=1", *GRID]
    words = ["-m", *overrides, "hydra/launcher=basic"]
    first = command("mlkd.train", *words)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "cells: 2, 0 of them finished" in first.stdout
    assert "shared: assistant, shared by 2 cells: to run first" in first.stdout
    assert "0 of 3 jobs done, 1 running: shared-" in first.stdout
    assert "2 of 3 jobs done, 1 running, " in first.stdout
    assert " left: " in first.stdout and ", log: " not in first.stdout
    assert "no finished run with this budget to judge by" in first.stdout
    record = the_record(output)
    assert [entry["status"] for entry in record["cells"]] == ["finished"] * 2
    assert [entry["stage"] for entry in record["shared"]] == ["assistant"]
    stages = sorted(name.split("-")[0] for name in runs(output))
    assert stages == ["assistant", *["bottleneck"] * 2, *["contrastive"] * 2, *["recurrent"] * 2]
    # One pass of each encoder over the sentences: teacher, assistant, its embeddings.
    segments = sorted((output / "cache").glob("targets-*/segment-*"))
    assert len(segments) == 3
    assert len({path.parent for path in segments}) == 3
    assert all(len(np.load(path / "keys.npy")) > 0 for path in segments)
    links = sorted((output / "multirun").glob("*/cells/*"))
    assert [link.name for link in links] == ["bottleneck=4", "bottleneck=8"]
    assert {link.resolve().name for link in links} == {e["runs"][-1] for e in record["cells"]}
    cells = collect([str(output)])
    assert [(c.status, len(c.links)) for c in cells] == [("finished", 4)] * 2

    victim = record["cells"][0]
    last = output / "runs" / victim["runs"][-1]
    shutil.rmtree(last)
    last.write_text("in the way")  # a run folder that cannot be made
    before = runs(output)
    again = command("mlkd.train", *words)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "cells: 2, 1 of them finished" in again.stdout
    assert "shared: assistant, shared by 2 cells: exists" in again.stdout
    assert "1 links to train" in again.stdout
    failed = the_record(output)["cells"][0]
    assert failed["status"] == "failed"
    assert failed["error"] == f"{last / 'run.json'}: cannot be read (Not a directory)"
    assert failed["error"] in Path(failed["log"]).read_text()
    assert again.stdout.count(", log: ") == 1
    assert f"{failed['id']} failed, log: {failed['log']}" in again.stdout
    assert runs(output) == before
    statuses = [cell.status for cell in collect([str(output)])]
    assert statuses == ["failed", "finished"]

    last.unlink()
    mended = command("mlkd.train", *words)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert [e["status"] for e in the_record(output)["cells"]] == ["finished"] * 2
    changed = {name for name, time in runs(output).items() if before.get(name) != time}
    assert changed == {victim["runs"][-1]}
    last_line = mended.stdout.strip().splitlines()[-1]
    assert Path(last_line.removeprefix("sweep: ")).is_file()


def study_of(output: Path) -> optuna.Study:
    (path,) = (output / "multirun").glob("*/optuna.journal")
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name=path.parent.name, storage=storage)


@pytest.mark.slow
def test_a_search_draws_until_it_has_enough_and_goes_on(
    tiny_overrides: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In this process: two cells, one that a killed call had drawn, and all that there are."""
    output = tmp_path / "out"
    space = ["student.bottleneck=2,4", "student.recurrence=1,2", "init.layers=first"]
    space += ["student.intermediate=null", "stages.contrastive.lr=1e-4"]
    short = ["stage=bottleneck", "sweep.optuna.parallel=2"]
    fixed = [line for line in tiny_overrides if not line.startswith("student.bottleneck")]
    command = [*fixed, "sweep=optuna", *space, *short]
    caplog.set_level("INFO")

    def call(trials: int) -> list[dict[str, Any]]:
        with composing():
            request = read_request([*command, f"sweep.optuna.trials={trials}"])
            assert print_outcome(search(request, "the command"))
        cells: list[dict[str, Any]] = the_record(output)["cells"]
        return cells

    assert len(call(2)) == 2
    before = runs(output)
    stages = [name.split("-")[0] for name in before]
    assert (stages.count("assistant"), stages.count("bottleneck")) == (1, 2)
    study = study_of(output)
    for trial, entry in zip(study.trials, the_record(output)["cells"], strict=True):
        record = json.loads((output / "runs" / entry["runs"][-1] / "run.json").read_text())
        assert trial.values == [record["selected"], record["metrics"]["mib"]]
    assert "front: dev" in caplog.text

    drawn = {(t.params["student.bottleneck"], t.params["student.recurrence"]) for t in study.trials}
    left = {(width, passes) for width in "24" for passes in "12"} - drawn
    width, passes = left.pop()
    study.enqueue_trial({"student.bottleneck": width, "student.recurrence": passes})
    study.ask(study.trials[0].distributions)
    study.ask({"student.bottleneck": study.trials[0].distributions["student.bottleneck"]})
    cells = call(3)
    assert len(cells) == 3
    assert cells[2]["overrides"] == {
        "student.bottleneck": width, "student.recurrence": passes
    }  # fmt: skip

    assert len(call(99)) == 4
    assert "no cell besides these 4" in caplog.text
    assert not study_of(output).get_trials(states=(TrialState.RUNNING,))
    after = runs(output)
    assert len(after) == 1 + 4
    assert before
    assert all(after[name] == time for name, time in before.items())


def test_changed_code_is_noticed(tiny_overrides: list[str], tmp_path: Path) -> None:
    """A job that was submitted with other code does not run."""
    jobs = plan(*tiny_overrides, "student.recurrence=1,2")
    record = SweepRecord(tmp_path / "sweep")
    record.start({"command": "-m", "launcher": "local"}, jobs, {})
    write_job(record, jobs[0])
    submitted = json.loads(record.job(jobs[0].id).read_text())
    record.job(jobs[0].id).write_text(json.dumps(submitted | {"code": "0123", "version": "v1"}))
    with pytest.raises(JobFailed, match="the code has changed since this job was submitted"):
        run_job(record.folder, jobs[0].id)
    entry = record.entries()[jobs[0].id]
    assert entry["status"] == "failed"
    assert "(then v1, now" in entry["error"]
    (line,) = Path(entry["log"]).read_text().splitlines()
    assert entry["error"] in line
    assert not (tmp_path / "out").exists()


def test_a_job_that_runs_before_what_it_needs_says_so(
    tiny_overrides: list[str], tmp_path: Path
) -> None:
    jobs = plan(*tiny_overrides, "student.recurrence=1,2")
    shared, cell, _ = jobs
    record = SweepRecord(tmp_path / "sweep")
    record.start(
        {"command": "-m", "launcher": "local"},
        jobs,
        {shared.id: {"status": "failed", "error": "it broke"}},
    )
    write_job(record, cell)
    with pytest.raises(JobFailed, match=f"it was started before {shared.id}, which it needs"):
        run_job(record.folder, cell.id)
    error = record.entries()[cell.id]["error"]
    assert error.endswith("which is failed (it broke); the same command runs both")
    assert not (tmp_path / "out").exists()


def test_the_local_launcher_gives_each_cell_a_process(
    tiny_overrides: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They end as soon as they have compared their code: no torch is imported."""
    caplog.set_level("INFO")
    jobs = plan(*tiny_overrides, "stage=assistant", "seed=0,1")
    record = SweepRecord(tmp_path / "sweep")
    record.start({"command": "-m", "launcher": "local"}, jobs, {})
    for job in jobs:
        write_job(record, job)
        written = json.loads(record.job(job.id).read_text())
        record.job(job.id).write_text(json.dumps(written | {"code": "0123"}))
    run_in_processes(record, jobs, LocalConfig(kind="local", processes=2))
    assert "0 of 2 jobs done, 2 running" in caplog.text
    assert "2 of 2 jobs done, 0 running" in caplog.text
    for entry in record.entries().values():
        assert entry["status"] == "failed"
        assert entry["error"].startswith("the code has changed since this job was submitted")
        assert Path(entry["log"]).with_suffix(".out").is_file()


@pytest.mark.slow
def test_the_local_launcher_trains_each_cell_in_its_process(
    tiny_overrides: list[str], tmp_path: Path, command: Command
) -> None:
    words = [*tiny_overrides, "stage=assistant", "seed=0,1", "hydra/launcher=local"]
    done = command("mlkd.train", "-m", *words, "hydra.launcher.processes=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "to run: 0 shared jobs, 2 cells on local" in done.stdout
    record = the_record(tmp_path / "out")
    assert [cell["status"] for cell in record["cells"]] == ["finished"] * 2
    for cell in record["cells"]:
        assert "assistant: ran (" in Path(cell["log"]).read_text()


def test_the_local_launcher_counts_whole_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    listed = (
        "GPU 0: NVIDIA A (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-1)\nGPU 1: NVIDIA B\n"
    )
    tool.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _gpus() == ["0", "1"]
    assert _environment(1, _gpus(), threads=2)["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(1200)
def test_twelve_cells_train_one_assistant_and_ask_the_teacher_once(
    tiny_overrides: list[str], tmp_path: Path, command: Command
) -> None:
    grid = ("student.bottleneck", "student.layers")
    fixed = [line for line in tiny_overrides if not line.startswith(grid)]
    done = command(
        "mlkd.train", "-m", *fixed, "sweep=bottleneck_recurrence", "student.bottleneck=2,4,8",
        "student.layers=1,2", "hydra/launcher=local", "hydra.launcher.processes=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    record = the_record(tmp_path / "out")
    assert [cell["status"] for cell in record["cells"]] == ["finished"] * 12
    stages = [name.split("-")[0] for name in runs(tmp_path / "out")]
    assert stages.count("assistant") == 1
    assert stages.count("contrastive") == 12
    # A segment is what a pass of an encoder over sentences leaves behind: the teacher's, the
    # assistant's and that of its embeddings.
    segments = list((tmp_path / "out" / "cache").glob("targets-*/segment-*"))
    assert len(segments) == len({path.parent for path in segments}) == 3
    logs = "".join(path.read_text() for path in tmp_path.glob("out/multirun/*/logs/*.log"))
    assert logs.count("assistant: ran (") == 1
    assert logs.count("assistant: reused (") == 12
