from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
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
from mlkd.config.schema import TrainConfig
from mlkd.config.sweeps import LocalConfig, SlurmConfig
from mlkd.output.errors import UserError
from mlkd.recipes.identity import link_keys
from mlkd.recipes.recipe import links
from mlkd.reporting.collect import collect
from mlkd.runs.index import Finished
from mlkd.sweeps.driver import finish, unfinished
from mlkd.sweeps.grid import make_cells, read_request
from mlkd.sweeps.job import JobFailed, run_job, write_job
from mlkd.sweeps.local import _environment, _gpus
from mlkd.sweeps.plan import cost
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.search import search
from mlkd.sweeps.slurm import outcome
from mlkd.sweeps.tree import Job, make_jobs

GRID = ["sweep=bottleneck_recurrence", "student.bottleneck=4,8", "student.recurrence=1,2"]


def plan(*overrides: str) -> tuple[list[Job], dict[str, str]]:
    with composing():
        cells, impossible = make_cells(read_request(overrides))
    return make_jobs(cells), impossible


def test_the_named_sweep_has_twelve_cells_that_share_one_assistant() -> None:
    jobs, impossible = plan("sweep=bottleneck_recurrence")
    assert not impossible
    shared = [job for job in jobs if not job.is_cell]
    assert [(job.upto, job.cells, job.parent) for job in shared] == [("assistant", 12, None)]
    cells = [job for job in jobs if job.is_cell]
    assert len({job.id for job in cells}) == 12
    assert {job.parent for job in cells} == {shared[0].id}
    assert cells[0].overrides == {
        "student.bottleneck": "64", "student.layers": "2", "student.recurrence": "1"
    }  # fmt: skip


def test_shared_work_is_a_tree() -> None:
    jobs, _ = plan("seed=0,1", "loss@stages.contrastive.loss=pair_mse,pair_mse_mcl")
    shared = {job.id: job for job in jobs if not job.is_cell}
    assert sorted((str(job.upto), job.cells) for job in shared.values()) == [
        ("recurrent", 2), ("recurrent", 2)
    ]  # fmt: skip
    assert len({job.parent for job in jobs if job.is_cell}) == 2
    jobs, _ = plan("student.recurrence=1,2", "loss@stages.contrastive.loss=pair_mse,pair_mse_mcl")
    uptos = [(job.upto, job.cells) for job in jobs if not job.is_cell]
    assert uptos == [("assistant", 4), ("recurrent", 2), ("recurrent", 2)]
    assert jobs[1].parent == jobs[2].parent == jobs[0].id


def test_without_an_assistant_to_train_data_and_targets_are_shared(encoder_folder: Path) -> None:
    jobs, _ = plan(
        "student.recurrence=1,2", "assistant=folder", f"assistant.encoder.path={encoder_folder}",
        "teacher=folder", f"teacher.path={encoder_folder}", "student.bottleneck=4",
    )  # fmt: skip
    assert (jobs[0].upto, jobs[0].is_cell) == (None, False)


def test_cells_of_any_recipe_share_their_links() -> None:
    jobs, _ = plan("recipe=mse", "student.layers=2,3", "seed=0,1", "assistant.seed=0")
    assert [(job.upto, job.cells) for job in jobs if not job.is_cell] == [("assistant", 4)]
    assert {job.upto for job in jobs if job.is_cell} == {"mse"}
    jobs, _ = plan("recipe=multistage,mse", "assistant.seed=0")
    assert [(job.upto, job.cells) for job in jobs if not job.is_cell] == [("assistant", 2)]
    jobs, _ = plan("recipe=mse", "stages.assistant.enabled=true,false")
    assert sum(job.is_cell for job in jobs) == 2


def test_impossible_cells_are_left_out_with_a_word() -> None:
    jobs, impossible = plan("student.layers=2,9", "student.recurrence=1,2")
    assert sum(job.is_cell for job in jobs) == 2
    assert list(impossible) == [
        "student.layers=9 student.recurrence=1", "student.layers=9 student.recurrence=2"
    ]  # fmt: skip
    assert "the backbone has 6 layers" in impossible["student.layers=9 student.recurrence=1"]
    _, impossible = plan("sweep=init", "seed=0", "stages.contrastive.fraction=1")
    assert all("scratch" in label and "ends" in label for label in impossible)
    assert len(impossible) == 3


def test_a_setting_that_no_cell_reads_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    lr, tables = "stages.bottleneck.lr=1e-3", "student.bottleneck=4,null"
    starts = ["init.embedding=svd,copy", tables]
    plan(*starts, lr)  # cells with a bottleneck read it
    with pytest.raises(UserError, match=r"stages\.bottleneck\.lr: not read, the link bottleneck"):
        plan("seed=0,1", "init=copy", "student.bottleneck=null", lr)
    ablations = "stages.contrastive.enabled=true,false"
    plan(ablations, "stage=recurrent", "stages.recurrent.dropout=0.1", "seed=0,1")
    assert caplog.messages == []
    plan("seed=0,1", "stage=recurrent", "stages.contrastive.dropout=0.1")
    assert caplog.messages == [
        "stages.contrastive.dropout: not read, the link contrastive is not in this chain"
    ]


def test_the_share_of_the_data_is_the_students() -> None:
    jobs, _ = plan("sweep=init", "seed=0", "init=teacher", "init.layers=ends")
    assert [(job.upto, job.cells) for job in jobs if not job.is_cell] == [("assistant", 9)]
    assert {job.config.stages["contrastive"].fraction for job in jobs} == {0.01, 0.1, 1.0}
    assert {job.config.stages["assistant"].fraction for job in jobs} == {1.0}


def test_seeds_share_an_assistant_that_has_a_seed_of_its_own() -> None:
    jobs, _ = plan("seed=0,1,2", "assistant.seed=0")
    assert [(job.upto, job.cells) for job in jobs if not job.is_cell] == [("assistant", 3)]
    assert len({job.key for job in jobs if job.is_cell}) == 3
    seeds = {tuple(link.seed for link in links(job.config)[:3:2]) for job in jobs}
    assert seeds == {(0, 0), (0, 1), (0, 2)}
    jobs, _ = plan("seed=0,1,2")
    assert [job.is_cell for job in jobs] == [True] * 3


def test_each_part_of_the_method_can_be_left_out() -> None:
    jobs, impossible = plan("sweep=ablation", "experiment=ablations", "seed=0", "data.root=corpora")
    cells = {job.overrides["ablation"]: job.config for job in jobs if job.is_cell}
    assert not impossible
    assert len(cells) == 11
    steps = {
        name: sum(link.settings.max_steps or 0 for link in links(config))
        for name, config in cells.items()
    }
    assert set(steps.values()) == {300}
    changed = {n: [link.name for link in links(config)[1:]] for n, config in cells.items()}
    assert changed["none"] == ["bottleneck", "recurrent", "contrastive"]
    assert (
        changed["no_bottleneck_stage"] == changed["no_bottleneck"] == ["recurrent", "contrastive"]
    )
    assert changed["no_recurrent_stage"] == ["bottleneck", "contrastive"]
    assert changed["no_contrastive_stage"] == ["bottleneck", "recurrent"]
    assert changed["direct_mse"] == ["contrastive"]
    assert cells["direct_mse"].stages["contrastive"].loss.mcl is None
    terms = {name: config.stages["contrastive"].loss.mcl for name, config in cells.items()}
    modes = {name: term and term.mode for name, term in terms.items()}
    assert {name: mode for name, mode in modes.items() if mode not in ("soft", None)} == {
        "boolean": "bool",
        "cross_entropy": "ce",
    }


@pytest.mark.parametrize(
    ("steps", "depth", "expected"),
    [
        (200, 4, "60 s"),  # the limit of steps, whatever the share of the data
        (150, 4, "80 s"),  # more data, but no more than the limit
        (15, 4, "10 min"),  # ten times as much data
        (200, 2, "2 min"),  # of layers that a sentence passes
    ],
)
def test_cost_is_judged_by_runs_of_the_same_budget(steps: int, depth: int, expected: str) -> None:
    grid = ["init=base", "init.layers=ends", "seed=0", "stages.contrastive.fraction=0.1"]
    words = ["sweep=init", "experiment=privileged_grid", "data.root=corpora", *grid]
    job = plan(*words)[0][-1]
    budget = job.config.stages["contrastive"].deciding() | {"fraction": 0.01}
    run = Finished("x", "contrastive", 60.0, steps, None, None, budget, depth, True)
    assert f"2 links to train, {expected} and more (no" in cost([job.config], {"other": run})


def test_a_value_on_the_command_line_takes_the_place_of_the_grids() -> None:
    jobs, _ = plan("sweep=bottleneck_recurrence", "student.layers=2", "student.recurrence=1,2,3")
    cells = [job for job in jobs if job.is_cell]
    assert len(cells) == 9
    assert {job.config.student.layers for job in cells} == {2}
    assert {job.config.student.recurrence for job in cells} == {1, 2, 3}


def test_runs_of_a_sweep_are_a_group_in_wandb(tmp_path: Path) -> None:
    record = SweepRecord(tmp_path / "sweep-1")
    for logger, group in (("wandb", "sweep-1"), ("csv", None)):
        job = plan("seed=0,1", f"logger={logger}")[0][0]
        write_job(record, job)
        written = json.loads(record.job(job.id).read_text())["config"]
        assert TrainConfig.model_validate(written).logger.group == group


def test_what_does_not_decide_a_result_does_not_make_another_cell() -> None:
    jobs, impossible = plan("student.recurrence=1,2", "trainer.threads=1,2")
    assert sum(job.is_cell for job in jobs) == 2
    assert len(impossible) == 2
    assert all("the same as" in reason for reason in impossible.values())


def test_a_link_is_decided_by_its_own_settings() -> None:
    jobs, _ = plan("stages.contrastive.lr=1e-4,2e-4")
    first, second = (job.config for job in jobs if job.is_cell)
    first_keys, second_keys = link_keys(first), link_keys(second)
    assert first_keys["recurrent"] == second_keys["recurrent"]
    assert link_keys(first)["contrastive"] != link_keys(second)["contrastive"]
    for words in ("eval.precision=fp32,bf16", "eval.bootstrap=0,1000"):
        jobs, _ = plan(words)
        first, second = (job.config for job in jobs if job.is_cell)
        assert link_keys(first)["contrastive"] != link_keys(second)["contrastive"]


def test_a_path_of_a_set_may_have_languages_side_by_side(tmp_path: Path) -> None:
    own_set = "{kind: sts, split: dev, path: '{a}{b}.tsv', languages: [en, de], pairs: [en-de]}"
    words = [f"eval.root={tmp_path}", f"+eval.sets.mine={own_set}", "seed=0,1"]
    before = {job.key for job in plan(*words)[0]}
    (tmp_path / "ende.tsv").write_text("a\tb\t1\nc\td\t2\n")
    assert before.isdisjoint(job.key for job in plan(*words)[0])


def test_a_cell_is_finished_once_its_last_link_is_reported() -> None:
    jobs, _ = plan("seed=0,1")
    cells = [job for job in jobs if job.is_cell]
    run = Finished("contrastive-0", "contrastive", 1.0, 1, 50.0, 1.0, {}, 1, True)
    known = {job.key: run for job in jobs} | {cells[1].key: replace(run, is_reported=False)}
    assert unfinished(jobs, {job.id for job in cells}, {}, known) == [cells[1]]


def test_changed_files_make_other_links_of_the_same_cells(
    corpus: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    encoder = shutil.copytree(encoder_folder, tmp_path / "encoder")
    sets = tmp_path / "sets"
    sets.mkdir()
    (sets / "sts-en.tsv").write_text("a\tb\t1\nc\td\t2\n")
    own_set = "{kind: sts, split: dev, path: 'sts-{lang}.tsv', languages: [en]}"
    settings = tiny_settings(encoder, corpus, tmp_path / "out")
    words = [*settings, f"eval.root={sets}", f"+eval.sets.mine={own_set}", "seed=0,1"]
    files = [corpus / "pairs.en-de.tsv.gz", sets / "sts-en.tsv", encoder / "config.json"]

    def keys() -> list[str]:
        return [job.key for job in plan(*words)[0]]

    before = keys()
    assert keys() == before
    for path in files:
        was = path.stat()
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
        changed = keys()
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        assert not set(changed) & set(before), path
        assert [key[:8] for key in changed] == [key[:8] for key in before]  # the names of cells
    assert keys() == before


def test_shared_data_are_prepared_again_for_other_files(
    tiny_overrides: list[str], encoder_folder: Path
) -> None:
    ready = ["assistant=folder", f"assistant.encoder.path={encoder_folder}"]
    words = [word for word in tiny_overrides if "vocabulary" not in word]
    jobs, _ = plan(*words, *ready, "student.layers=1", "student.recurrence=1,2")
    (shared,) = (job for job in jobs if not job.is_cell)
    assert shared.upto is None
    cells = {job.id for job in jobs if job.is_cell}
    for key, left in ((shared.key, 2), (f"{shared.key[:-1]}x", 3)):
        entries = {shared.id: {"status": "finished", "key": key}}
        assert len(unfinished(jobs, cells, entries, {})) == left


def test_an_end_is_said_with_what_is_known() -> None:
    entry = {"error": None, "score": 71.25, "seconds": 12.4}
    assert outcome(entry) == "dev 71.2, 12 s"
    assert outcome(entry | {"seconds": None}) == "dev 71.2"
    assert outcome(entry | {"error": "cancelled"}) == "cancelled"


def test_launchers_are_settings() -> None:
    def launcher(*overrides: str) -> Any:
        with composing():
            return read_request(["seed=0,1", *overrides]).launcher

    assert launcher() is None
    local = launcher("hydra/launcher=local", "hydra.launcher.processes=3")
    assert isinstance(local, LocalConfig) and local.processes == 3
    slurm = launcher("hydra/launcher='slurm'", "hydra.launcher.partition=gpu")
    assert isinstance(slurm, SlurmConfig) and slurm.partition == "gpu"
    for wrong in ("hydra.launcher.timeout_min=2", "+hydra.launcher.partitions=gpu"):
        with pytest.raises(UserError, match=r"hydra\.launcher"):
            launcher("hydra/launcher=slurm", wrong)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "sweeps nothing"),
        (["sweep=bottleneck_recurence"], "bottleneck_recurrence"),
        (["student.recurrences=1,2"], "did you mean student.recurrence"),
        (["student.layers=8,9"], "no cell is possible"),
        (["seed=0,1", "trainer.devices=2"], "need hydra/launcher=slurm"),
        (["seed=0,1", "hydra/launcher=joblib"], "joblib: allowed: basic, local, slurm"),
        (["seed=0,1", "hydra/launcher=local,slurm"], "slurm: allowed: basic, local, slurm"),
        (["seed=0,1", "~hydra/launcher"], "allowed: basic, local, slurm"),
        (["seed=0,1", "hydra/sweeper=basic"], "mlkd plans its sweeps itself"),
        (["seed=0,1", "hydra.sweep.dir=here"], "mlkd plans its sweeps itself"),
        (["seed=0,1", "--cfg", "job"], "-m plans a sweep and takes no option beside it; leave out"),
        (["--resolve", "seed=0,1"], "leave out --resolve"),
    ],
)
def test_a_wrong_sweep_is_refused_in_a_line(
    overrides: list[str], message: str, command: Command
) -> None:
    flag = "--multi" if "--resolve" in overrides else "-m"  # Hydra takes either
    done = command("mlkd.train", flag, *overrides)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("hydra/launcher=slurm", "hydra/launcher=slurm starts the cells of a sweep; give -m"),
        ("hydra.mode=MULTIRUN", "hydra.mode: -m starts a sweep, nothing else does"),
    ],
)
def test_words_of_a_sweep_need_its_flag(word: str, message: str, command: Command) -> None:
    done = command("mlkd.train", word)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n"), done.stdout


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
    assert "cells: 4, 0 of them finished" in first.stdout
    assert "shared: assistant, shared by 4 cells: to run first" in first.stdout
    assert "0 of 5 jobs done, 1 running: shared-" in first.stdout
    assert "4 of 5 jobs done, 1 running, " in first.stdout
    assert " left: " in first.stdout and ", log: " not in first.stdout
    assert "no finished run with this budget to judge by" in first.stdout
    record = the_record(output)
    assert [entry["status"] for entry in record["cells"]] == ["finished"] * 4
    assert [entry["stage"] for entry in record["shared"]] == ["assistant"]
    stages = sorted(name.split("-")[0] for name in runs(output))
    assert stages == ["assistant", *["bottleneck"] * 4, *["contrastive"] * 4, *["recurrent"] * 4]
    # One pass of each encoder over the sentences: teacher, assistant, its embeddings.
    segments = sorted((output / "cache").glob("targets-*/segment-*"))
    assert len(segments) == 3
    assert len({path.parent for path in segments}) == 3
    assert all(len(np.load(path / "keys.npy")) > 0 for path in segments)
    links = sorted((output / "multirun").glob("*/cells/*"))
    assert links[0].name == "bottleneck=4,recurrence=1"
    assert {link.resolve().name for link in links} == {e["runs"][-1] for e in record["cells"]}
    cells = collect([str(output)])
    assert [(c.status, len(c.links)) for c in cells] == [("finished", 4)] * 4

    victim = record["cells"][2]
    last = output / "runs" / victim["runs"][-1]
    shutil.rmtree(last)
    last.write_text("in the way")  # a run folder that cannot be made
    before = runs(output)
    again = command("mlkd.train", *words)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "cells: 4, 3 of them finished" in again.stdout
    assert "shared: assistant, shared by 4 cells: exists" in again.stdout
    assert "1 links to train" in again.stdout
    failed = the_record(output)["cells"][2]
    assert failed["status"] == "failed"
    assert failed["error"] == f"{last / 'run.json'}: cannot be read (Not a directory)"
    assert failed["error"] in Path(failed["log"]).read_text()
    assert again.stdout.count(", log: ") == 1
    assert f"{failed['id']} failed, log: {failed['log']}" in again.stdout
    assert runs(output) == before
    statuses = [cell.status for cell in collect([str(output)])]
    assert statuses == ["finished", "finished", "failed", "finished"]

    last.unlink()
    mended = command("mlkd.train", *words)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert [e["status"] for e in the_record(output)["cells"]] == ["finished"] * 4
    changed = {name for name, time in runs(output).items() if before.get(name) != time}
    assert changed == {victim["runs"][-1]}
    last_line = mended.stdout.strip().splitlines()[-1]
    assert Path(last_line.removeprefix("sweep: ")).is_file()


def study_of(output: Path) -> optuna.Study:
    (path,) = (output / "multirun").glob("*/optuna.journal")
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name=path.parent.name, storage=storage)


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
            assert finish(search(request, "the command"))
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+sweep.optuna.space.seed={low:3,high:1}", "low=3.0 must be below high=1.0"),
        ("+sweep.optuna.space.seed={low:0,high:1.5,whole:true}", "must be whole numbers"),
        ("+sweep.grid.seed=[0]", "either sweep.grid or sweep.optuna"),
        ("sweep.optuna.trials=0", "sweep.optuna.trials"),
    ],
)
def test_a_wrong_search_is_refused_in_a_line(override: str, message: str) -> None:
    with (
        composing(),
        pytest.raises(UserError, match=message),
    ):
        read_request(["sweep=optuna", override])


def test_changed_code_is_noticed(tiny_overrides: list[str], tmp_path: Path) -> None:
    """A job that was submitted with other code does not run."""
    jobs, _ = plan(*tiny_overrides, "student.recurrence=1,2")
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
    jobs, _ = plan(*tiny_overrides, "student.recurrence=1,2")
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


def test_the_local_launcher_runs_each_cell_in_a_process(
    tiny_overrides: list[str], tmp_path: Path, command: Command
) -> None:
    words = [*tiny_overrides, "stage=assistant", "seed=0,1", "hydra/launcher=local"]
    done = command("mlkd.train", "-m", *words, "hydra.launcher.processes=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "to run: 0 shared jobs, 2 cells on local" in done.stdout
    assert "0 of 2 jobs done, 2 running" in done.stdout
    assert "2 of 2 jobs done, 0 running" in done.stdout
    record = the_record(tmp_path / "out")
    assert [cell["status"] for cell in record["cells"]] == ["finished"] * 2
    for cell in record["cells"]:
        assert "assistant: ran (" in Path(cell["log"]).read_text()
        assert Path(cell["log"]).with_suffix(".out").is_file()


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
