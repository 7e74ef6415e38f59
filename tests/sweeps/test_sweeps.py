from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from conftest import Command, tiny_settings

from mlkd.config.compose import composing
from mlkd.config.schema import TrainConfig
from mlkd.config.sweeps import LocalConfig, SlurmConfig
from mlkd.output.errors import UserError
from mlkd.recipes.identity import BySettings, identity, link_keys
from mlkd.recipes.recipe import links
from mlkd.runs.index import Finished
from mlkd.sweeps.driver import unfinished
from mlkd.sweeps.grid import make_cells, read_request
from mlkd.sweeps.job import write_job
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
    assert cells[0].name == "bottleneck=64,layers=2,recurrence=1"
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


def test_a_setting_that_no_cell_of_a_search_reads_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lr = "stages.bottleneck.lr=1e-3"
    started = RuntimeError("the search has started")

    def look(*overrides: str) -> None:
        with composing():
            request = read_request(["sweep=optuna", "init=copy", lr, *overrides])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("mlkd.sweeps.search._common_key", Mock(side_effect=started))
                search(request, "the command")

    with pytest.raises(UserError, match=r"stages\.bottleneck\.lr: not read, the link bottleneck"):
        look("student.bottleneck=null")
    assert not list(tmp_path.iterdir())
    tables = "student.bottleneck=null,null,null,null,null,null,null,null,4"
    with pytest.raises(RuntimeError, match=str(started)):
        look(tables, "init.embedding=copy,svd")


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
    (link,) = (link for link in links(job.config) if link.name == "contrastive")
    recorded = identity(job.config, link, BySettings(job.config))
    budget = recorded["link"] | {"fraction": 0.01}
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
        (["seed=0,1", "+hydra.launcher.foo=1"], "hydra.launcher.foo: not read; give"),
        (["seed=0,1", "hydra={mode: RUN}"], "mlkd plans its sweeps itself"),
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
        ("hydra={mode: MULTIRUN}", "hydra: -m starts a sweep, nothing else does"),
    ],
)
def test_words_of_a_sweep_need_its_flag(word: str, message: str, command: Command) -> None:
    done = command("mlkd.train", word)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n"), done.stdout


@pytest.mark.parametrize("word", ["-m", "--multirun", "hydra/launcher=slurm"])
@pytest.mark.parametrize("module", ["evaluate", "export", "pairs"])
def test_other_commands_run_once(word: str, module: str, command: Command) -> None:
    done = command(f"mlkd.{module}", word, "model=a,b")
    named = word.partition("=")[0]
    message = f"error: {named}: mlkd.{module} runs once; python -m mlkd.train -m sweeps\n"
    assert (done.returncode, done.stderr) == (2, message), done.stdout


@pytest.fixture
def tiny_overrides(encoder_folder: Path, corpus: Path, tmp_path: Path) -> list[str]:
    """A command line with outputs in ``tmp_path / "out"``."""
    return tiny_settings(encoder_folder, corpus, tmp_path / "out", 3)


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
