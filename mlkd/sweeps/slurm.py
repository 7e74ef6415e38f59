"""Launcher on a SLURM cluster: batch jobs through submitit, watched until they have ended."""

from __future__ import annotations

import io
import itertools
import logging
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from mlkd.config.schema import TrainConfig
from mlkd.config.sweeps import SlurmConfig
from mlkd.machine.cluster import REQUEUED
from mlkd.output.errors import UserError
from mlkd.sweeps.arrays import make_arrays
from mlkd.sweeps.job import run_job
from mlkd.sweeps.local import is_lost
from mlkd.sweeps.pace import Pace
from mlkd.sweeps.queue import Waits, array_limit, how_ended, patiently, queued_jobs
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.tree import Job

log = logging.getLogger(__name__)

_POLL = 3.0
"""Seconds between looks at the queue; a job is given up when two looks do not find it."""


def submit(record: SweepRecord, jobs: Sequence[Job], settings: SlurmConfig) -> None:
    """Submit all jobs at once; SLURM itself starts each after what it waits for.

    So nothing is lost when this process ends. Jobs that wait for the same one are an array, or as
    many as the cluster's limit makes of it. A submission whose answer was lost may have come
    through nevertheless: its jobs find nothing to do, as their number is not written down.

    Raises:
        UserError: A submission is refused, and still so after a minute if the refusal may pass.
    """

    def group(job: Job) -> tuple[Any, ...]:
        return job.is_cell, job.parent or "", job.config.trainer.nodes, job.config.trainer.devices

    limit = patiently(array_limit) if jobs else 1
    shared = [[job] for job in jobs if not job.is_cell]
    cells = sorted((job for job in jobs if job.is_cell), key=group)
    done: list[str] = []
    for members in [*shared, *(list(found) for _, found in itertools.groupby(cells, group))]:
        parent = members[0].parent
        before = record.entries()[parent] if parent else {"status": "finished"}
        needed = [] if before["status"] == "finished" else [f"afterok:{before['job']}"]
        numbers: list[str] = []
        for array in make_arrays(len(members), limit, settings.array_parallelism):
            part = members[array.start : array.stop]
            waits = [] if array.after is None else [f"afterany:{numbers[array.after]}"]
            executor = _executor(
                record.folder, settings, part[0].config, [*needed, *waits], array.parallel
            )
            submitted = _submit(executor, record.folder, [job.id for job in part], done)
            for job, number in zip(part, submitted, strict=True):
                record.update(job.id, job=number)
            numbers.append(submitted[0].split("_")[0])
            done.append(f"{_named(part)} as {numbers[-1]}")
            log.info("submitted %s: %s", numbers[-1], ", ".join(job.id for job in part))


def _submit(
    executor: submitit.SlurmExecutor, folder: Path, identities: list[str], done: list[str]
) -> list[str]:
    """Submit an array; gives the number of each job.

    Raises:
        UserError: It is refused; the line tells what was ``done`` before.
    """

    def act() -> list[str]:
        try:
            with redirect_stderr(io.StringIO()):  # submitit prints what it raises
                jobs = executor.map_array(run_job, [folder] * len(identities), identities)
        except (FailedJobError, FailedSubmissionError) as error:
            words = "; ".join(str(error).split("\n"))[:300]
            raise UserError(f"hydra/launcher=slurm: sbatch refused: {words}") from None
        return [job.job_id for job in jobs]

    try:
        return patiently(act)
    except UserError as error:
        if not done:
            raise
        raise UserError(
            f"{error}; submitted before that and going on: {', '.join(done)}; "
            "the same command submits the rest"
        ) from None


def _named(jobs: Sequence[Job]) -> str:
    return jobs[0].id if len(jobs) == 1 else f"{len(jobs)} cells"


def watch(record: SweepRecord, jobs: Sequence[Job]) -> None:
    """Wait until every job has ended; what ended without a word is entered in the record.

    Why jobs wait is said when it changes, as some wait for something that never comes.
    """
    waiting = {job.id: job for job in jobs}
    missed: dict[str, int] = dict.fromkeys(waiting, 0)
    waits, pace = Waits(), Pace(len(jobs))
    while waiting:
        time.sleep(_POLL)
        try:
            queued = queued_jobs()
        except UserError as error:
            log.warning("%s; ask again", error)
            continue
        entries = record.entries()
        ours = {str(entries[identity]["job"]) for identity in waiting}
        places = {number: place for number, place in queued.items() if number in ours}
        for line in waits.news(places):
            log.info("%s", line)
        for identity, job in list(waiting.items()):
            entry = entries[identity]
            missed[identity] = 0 if entry["job"] in queued else missed[identity] + 1
            if entry["status"] == "missing" and missed[identity] < 2:
                continue
            if entry["status"] == "missing" and job.parent not in waiting:
                _note_end(record, job, entry)
                entry = record.entries()[identity]
            if entry["status"] != "missing" or entry["error"]:
                del waiting[identity]
                log.info("%s %s (%s): %s", identity, entry["status"], job.label, outcome(entry))
        running = sum(place.state == "RUNNING" for place in places.values())
        if says := pace.news(len(jobs) - len(waiting), running):
            log.info("%s", says)


def outcome(entry: dict[str, Any]) -> str:
    """What a job that has ended came to, in words."""
    if entry["error"]:
        return str(entry["error"])
    score, seconds = entry["score"], entry["seconds"]
    words = [] if score is None else [f"dev {score:.1f}"]
    words += [] if seconds is None else [f"{seconds:.0f} s"]  # unknown of a run found finished
    return ", ".join(words)


def _note_end(record: SweepRecord, job: Job, entry: dict[str, Any]) -> None:
    """Enter why a job that left the queue has no result."""
    has_said = entry["error"] is not None and entry["error"] != REQUEUED
    if has_said or is_lost(record, job):
        return
    number = entry["job"]
    printed = record.folder / "slurm" / f"{number}_0_log.err"
    if printed.is_file():
        words = how_ended(number) or "ended without a word"
        record.update(job.id, status="failed", error=f"SLURM job {number} {words}; see {printed}")
    else:
        record.update(job.id, error=f"SLURM job {number} was cancelled before it started")


def _executor(
    folder: Path, settings: SlurmConfig, config: TrainConfig, needed: list[str], parallel: int
) -> submitit.SlurmExecutor:
    """What submits jobs.

    Args:
        folder: Of the sweep.
        settings: Of the launcher.
        config: Of one of the jobs.
        needed: What they wait for, in sbatch's words.
        parallel: How many of them may run at a time.
    """
    executor = submitit.SlurmExecutor(folder=folder / "slurm")
    optional = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "gpus_per_node": settings.gpus_per_node,
        "mem": None if settings.mem_gb is None else f"{round(1024 * settings.mem_gb)}MB",
        "dependency": ",".join(needed) or None,
    }
    executor.update_parameters(
        job_name=folder.name,
        time=settings.timeout_min,
        nodes=config.trainer.nodes,
        ntasks_per_node=config.trainer.devices,
        cpus_per_task=settings.cpus_per_task,
        signal_delay_s=settings.signal_delay_s,
        array_parallelism=parallel,
        setup=settings.setup,
        srun_args=["--kill-on-bad-exit=1"],
        additional_parameters={
            "requeue": True,
            "kill-on-invalid-dep": "yes",
            **settings.additional_parameters,
        },
        **{key: value for key, value in optional.items() if value is not None},
    )
    return executor
