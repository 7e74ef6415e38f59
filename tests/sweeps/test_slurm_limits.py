"""What clusters refuse, hold up and forget, on a real one (see :mod:`sandbox`).

The jobs end as soon as they have compared their code: no test waits for a training.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from conftest import tiny_settings, write_corpus
from sandbox import ARRAY_LIMIT, running_cluster, slurm, wait_for

from mlkd.config.compose import composing
from mlkd.config.sweeps import SlurmConfig
from mlkd.output.errors import UserError
from mlkd.sweeps.grid import make_cells, read_request
from mlkd.sweeps.job import write_job
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.slurm import submit, watch
from mlkd.sweeps.status import standings
from mlkd.sweeps.tree import Job, make_jobs

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    with running_cluster() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture
def sweep(
    cluster: dict[str, str], encoder_folder: Path, tmp_path: Path
) -> Callable[..., tuple[SweepRecord, list[Job]]]:
    """Plan a sweep whose jobs were written down by other code, so that they end at once."""
    corpus = write_corpus(tmp_path / "corpus")
    words = tiny_settings(encoder_folder, corpus, tmp_path / "out")

    def plan(*overrides: str) -> tuple[SweepRecord, list[Job]]:
        with composing():
            cells, _ = make_cells(read_request([*words, *overrides]))
        jobs = make_jobs(cells)
        record = SweepRecord(tmp_path / "out" / "multirun" / "limits")
        head = {"command": "-m", "launcher": "slurm", "output_dir": str(tmp_path / "out")}
        record.start(head, jobs, {})
        for job in jobs:
            write_job(record, job)
            change(record.job(job.id), code="0123")
        return record, jobs

    return plan


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def settings(**more: Any) -> SlurmConfig:
    return SlurmConfig(kind="slurm", cpus_per_task=1, **more)


def numbers(record: SweepRecord, jobs: Sequence[Job]) -> list[tuple[str, str]]:
    entries = record.entries()
    pairs = [str(entries[job.id]["job"]).partition("_") for job in jobs]
    return [(array, task) for array, _, task in pairs]


def test_more_cells_than_an_array_may_have(
    sweep: Callable[..., tuple[SweepRecord, list[Job]]], cluster: dict[str, str]
) -> None:
    record, jobs = sweep("seed=0,1,2,3,4,5,6")
    assert len(jobs) == 2 * ARRAY_LIMIT + 1
    submit(record, jobs, settings(array_parallelism=2))
    arrays, tasks = zip(*numbers(record, jobs), strict=True)
    # 7 cells are 2 + 2 + 3, each array beginning at 0; two at a time is one of each of two arrays,
    # and the third array comes after the first one.
    assert tasks == ("0", "1", "0", "1", "0", "1", "2")
    first, second, third = sorted(set(arrays), key=int)
    assert arrays == (*[first] * 2, *[second] * 2, *[third] * 3)
    told = slurm(cluster, "scontrol", "show", "job", third)
    assert f"Dependency=afterany:{first}_*(unfulfilled)" in told
    assert "ArrayTaskThrottle=1" in told
    watch(record, jobs)
    errors = {entry["error"] for entry in record.entries().values()}
    assert len(errors) == 1
    assert "the code has changed since this job was submitted" in errors.pop()


def test_why_jobs_wait_is_said(
    sweep: Callable[..., tuple[SweepRecord, list[Job]]],
    cluster: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Three jobs that never start: too long and too large for the partition, and held."""
    caplog.set_level(logging.INFO)
    record, jobs = sweep("seed=0,1,2")
    endless, wide, held = jobs
    submit(record, [endless], settings(partition="short", timeout_min=20))
    submit(record, [wide], settings().model_copy(update={"cpus_per_task": 99}))
    submit(record, [held], settings(additional_parameters={"hold": True}))
    long, large, waits = (number for number, _ in numbers(record, jobs))
    watcher = Thread(target=watch, args=(record, jobs))
    watcher.start()
    wait_for(lambda: f"waiting on SLURM: {large}: PartitionConfig (they ask" in caplog.text, 30)
    wait_for(lambda: f"waiting on SLURM: {long}: PartitionTimeLimit (hydra" in caplog.text, 30)
    wait_for(lambda: f"waiting on SLURM: {waits}: JobHeldUser (held by" in caplog.text, 30)
    stands = {standing.id: standing for standing in standings(record)}
    assert stands[endless.id].word == stands[held.id].word == "queued"
    assert stands[held.id].detail.startswith(f"SLURM job {waits}: JobHeldUser (held by")
    slurm(cluster, "scancel", long, large)
    slurm(cluster, "scontrol", "release", waits)
    watcher.join(60)
    assert not watcher.is_alive()
    assert caplog.text.count(f"waiting on SLURM: {long}") == 1
    entries = record.entries()
    assert entries[endless.id]["error"] == f"SLURM job {long} was cancelled before it started"
    assert entries[held.id]["status"] == "failed"


def test_what_is_not_requeued_is_said_and_what_is_missing_too(
    sweep: Callable[..., tuple[SweepRecord, list[Job]]],
    cluster: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two cells start without what they wait for, since SLURM has forgotten that job.

    While they wait, the one is asked to stop where there is no scontrol, the other one while the
    controller is away; it is requeued when that is back. So is submitted what was tried meanwhile.
    """
    record, (shared, lost, patient) = sweep("student.recurrence=1,2", "stage=bottleneck")
    for job in (lost, patient):
        write_job(record, job)  # this time by the code that runs them
    record.update(shared.id, job="99999")
    without = tmp_path / "bin"
    without.mkdir()
    (without / "srun").symlink_to("/usr/bin/srun")
    submit(record, [lost], settings(setup=[f"export PATH={without}"]))
    submit(record, [patient], settings())
    (first, _), (second, _) = numbers(record, [lost, patient])
    for number in (first, second):
        assert "Dependency=(null)" in slurm(cluster, "scontrol", "show", "job", number)
    wait_for(lambda: record.worker(lost.id) and record.worker(patient.id))
    pid = int(str(record.worker(patient.id)).split()[1])
    slurm(cluster, "scancel", "--signal=USR2", first)

    def refused(job: Job) -> bool:
        error = record.entries()[job.id]["error"] or ""
        return error.startswith("could not be requeued: ") and error.endswith("goes on")

    wait_for(lambda: refused(lost))
    controller = int(Path(cluster["SLURM_CONF"]).with_name("slurmctld.pid").read_text())
    os.kill(controller, signal.SIGTERM)
    wait_for(lambda: not Path(f"/proc/{controller}").exists())
    os.kill(pid, signal.SIGUSR2)
    later = Thread(target=submit, args=(record, [shared], settings()))
    later.start()
    try:
        wait_for(lambda: refused(patient))
    finally:
        subprocess.run(["slurmctld", "-i"], check=True, env=cluster)
    wait_for(lambda: "Restarts=1" in slurm(cluster, "scontrol", "show", "job", second))
    later.join(60)
    assert "try again for a minute" in caplog.text
    assert int(record.entries()[shared.id]["job"]) > int(second)
    watch(record, [shared, lost, patient])
    entries = record.entries()
    assert "'scontrol'" in entries[lost.id]["error"]
    assert entries[patient.id]["status"] == "failed"
    assert f"it was started before {shared.id}, which it needs" in entries[patient.id]["error"]
    log = Path(entries[patient.id]["log"]).read_text()
    assert log.index("stopped by SIGUSR2") < log.index("could not be requeued: ")


def test_a_refusal_says_what_was_submitted_before(
    sweep: Callable[..., tuple[SweepRecord, list[Job]]],
    cluster: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the cells share is in the queue when their array is refused."""
    record, (shared, *cells) = sweep("student.recurrence=1,2,3,4", "student.layers=1")
    assert len(cells) == ARRAY_LIMIT + 1
    monkeypatch.setattr("mlkd.sweeps.slurm.array_limit", lambda: 1001)  # as it was a moment ago
    with pytest.raises(UserError) as refused:
        submit(record, [shared, *cells], settings(additional_parameters={"hold": True}))
    number = record.entries()[shared.id]["job"]
    assert "sbatch refused: " in str(refused.value)
    assert "Invalid job array specification" in str(refused.value)
    assert str(refused.value).endswith(
        f"submitted before that and going on: {shared.id} as {number}; "
        "the same command submits the rest"
    )
    slurm(cluster, "scancel", number)
