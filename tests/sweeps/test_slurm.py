"""Sweeps on a real SLURM cluster that are disturbed while they train (see :mod:`sandbox`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import configure, tiny_settings, write_corpus
from safetensors.torch import load_file
from sandbox import record_of, running_cluster, slurm, wait_for

STEPS = 600

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """Environment of a running cluster."""
    with running_cluster() as environment:
        yield environment


@pytest.fixture(scope="module")
def tiny(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A chain with a link that takes some seconds and saves often."""
    folder = tmp_path_factory.mktemp("slurm")
    corpus = write_corpus(folder / "corpus")
    overrides = tiny_settings(encoder_folder, corpus, folder / "out", 10)
    often = ["trainer.save_steps=50", "trainer.save_cost=1"]
    long = ["stage=bottleneck", f"stages.bottleneck.max_steps={STEPS}"]
    return [*overrides, *long, "student.layers=1", *often]


def output_of(overrides: list[str]) -> Path:
    return Path(next(o for o in overrides if o.startswith("output_dir=")).split("=")[1])


def sweep(overrides: list[str], cluster: dict[str, str]) -> subprocess.Popen[str]:
    launcher = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1"]
    return subprocess.Popen(
        [sys.executable, "-m", "mlkd.train", "-m", *overrides, *launcher],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=cluster,
    )  # fmt: skip


def ended(driver: subprocess.Popen[str], status: int) -> str:
    printed, _ = driver.communicate(timeout=600)
    assert driver.returncode == status, printed
    return printed


def training(output: Path, cell: int) -> dict[str, Any] | None:
    """Entry of a cell whose long link has saved something and goes on."""
    entry: dict[str, Any] = record_of(output)["cells"][cell]
    saved = bool(entry["runs"]) and entry["job"] and entry["runs"][-1].startswith("bottleneck")
    if saved and (output / "runs" / entry["runs"][-1] / "last.ckpt").is_file():
        return entry
    return None


def weights(output: Path, run: str) -> dict[str, torch.Tensor]:
    return load_file(output / "runs" / run / "student" / "model.safetensors")


def test_a_sweep_with_a_cancelled_a_preempted_and_a_timed_out_cell(
    cluster: dict[str, str], tiny: list[str], tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    output = output_of(tiny)
    grid = ["student.recurrence=1,2,3"]
    driver = sweep([*tiny, *grid], cluster)
    # The last one is what SLURM sends some time before the limit. SLURM gives the last task of an
    # array the number of the whole array: it must have itself requeued and not the others.
    disturbances = [("scancel",), ("scontrol", "requeue"), ("scancel", "--signal=USR2")]
    waiting = dict(enumerate(disturbances))

    def disturb() -> bool:
        for cell in list(waiting):
            if entry := training(output, cell):
                slurm(cluster, *waiting[cell], entry["job"])
                del waiting[cell]
        return not waiting

    try:
        wait_for(disturb)
        printed = ended(driver, 1)
    finally:
        driver.kill()
    assert "to run: 1 shared jobs, 3 cells on slurm" in printed
    record = record_of(output)
    status = [entry["status"] for entry in record["cells"]]
    assert status == ["missing", "finished", "finished"], printed
    assert record["cells"][0]["error"] == "stopped by SIGTERM"
    assert len(list((output / "runs").glob("assistant-*"))) == 1
    for entry in record["cells"][1:]:
        assert "Restarts=1" in slurm(cluster, "scontrol", "show", "job", entry["job"])
        assert "bottleneck: resumed (it was interrupted)" in Path(entry["log"]).read_text()

    printed = ended(sweep([*tiny, *grid], cluster), 0)
    assert "cells: 3, 2 of them finished" in printed
    assert "to run: 0 shared jobs, 1 cells on slurm" in printed
    record = record_of(output)
    assert [entry["status"] for entry in record["cells"]] == ["finished"] * 3
    log = Path(record["cells"][0]["log"]).read_text()
    assert "stopped by SIGTERM" in log
    assert "bottleneck: resumed (it was interrupted)" in log

    # The same cells without any disturbance have the same weights.
    calm = tmp_path / "calm"
    for entry in record["cells"]:
        own = [f"{key}={value}" for key, value in entry["overrides"].items()]
        run_chain(configure(*tiny, *own, f"output_dir={calm}"))
        expected, found = weights(calm, entry["runs"][-1]), weights(output, entry["runs"][-1])
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_what_sbatch_refuses_is_said_in_a_line(cluster: dict[str, str], tiny: list[str]) -> None:
    wrong = ["seed=7,8", "hydra.launcher.partition=typo"]
    process = sweep([*tiny, *wrong], cluster)
    said = process.communicate()[0].strip().splitlines()
    assert process.returncode == 2, said
    assert said[-1].startswith("error: hydra/launcher=slurm: sbatch refused: ")
    assert "partition" in said[-1]
    assert not any("Traceback" in line for line in said)


def test_cells_of_two_tasks_train_together_and_go_on(
    cluster: dict[str, str], tiny: list[str], tmp_path: Path
) -> None:
    """DDP through srun with gloo; one cell is asked to stop before its limit and goes on."""
    output = tmp_path / "two"
    two = [*tiny, f"output_dir={output}", "trainer.devices=2"]
    driver = sweep([*two, "seed=0,1"], cluster)
    try:
        warned = wait_for(lambda: training(output, 0))
        slurm(cluster, "scancel", "--signal=USR2", warned["job"])
        ended(driver, 0)
    finally:
        driver.kill()
    first, second = record_of(output)["cells"]
    assert "NumTasks=2" in slurm(cluster, "scontrol", "show", "job", second["job"])
    log = Path(first["log"]).read_text()
    assert "stopped by SIGUSR2" in log
    assert "bottleneck: resumed (it was interrupted)" in log
    assert "stopped by SIGUSR2" in Path(first["log"]).with_suffix(".1.log").read_text()
    for entry in (first, second):
        record = json.loads((output / "runs" / entry["runs"][-1] / "run.json").read_text())
        assert record["training"]["steps"] == STEPS
        assert record["training"]["processes"] == 2
