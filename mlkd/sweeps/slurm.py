"""Launcher on a SLURM cluster: batch jobs through submitit, watched until they have ended."""

from __future__ import annotations

import itertools
import logging
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from mlkd.config.schema import TrainConfig
from mlkd.config.sweeps import SlurmConfig
from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of
from mlkd.sweeps.job import run_job
from mlkd.sweeps.local import is_lost
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.tree import Job

log = logging.getLogger(__name__)

_POLL = 3.0
"""Seconds between looks at the queue; a job is given up when two looks do not find it."""


def queued_jobs() -> set[str]:
    """Numbers of the user's jobs that wait or run, ``<array>_<task>`` for those of an array.

    Raises:
        UserError: There is no cluster.
    """
    if shutil.which("sbatch") is None:
        raise UserError("hydra/launcher=slurm: no sbatch here; give hydra/launcher=local")
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (subprocess.SubprocessError, OSError) as error:
        words = getattr(error, "stderr", None) or str(error)
        raise UserError(f"SLURM does not answer: {str(words).strip()[:200]}") from None
    return set(listed.stdout.split())


def submit(record: SweepRecord, jobs: Sequence[Job], settings: SlurmConfig) -> None:
    """Submit all jobs at once; SLURM itself starts each after what it waits for.

    So nothing is lost when this process ends. Jobs that wait for the same one are an array.
    """

    def group(job: Job) -> tuple[Any, ...]:
        return job.is_cell, job.parent or "", job.config.trainer.nodes, job.config.trainer.devices

    shared = [[job] for job in jobs if not job.is_cell]
    cells = sorted((job for job in jobs if job.is_cell), key=group)
    for members in [*shared, *(list(found) for _, found in itertools.groupby(cells, group))]:
        parent = members[0].parent
        before = record.entries()[parent] if parent else {"status": "finished"}
        number = None if before["status"] == "finished" else before["job"]
        executor = _executor(record.folder, settings, members[0].config, number)
        identities = [job.id for job in members]
        try:
            submitted = executor.map_array(run_job, [record.folder] * len(members), identities)
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"hydra/launcher=slurm: sbatch refused: {reason_of(error)}") from None
        for identity, job in zip(identities, submitted, strict=True):
            record.update(identity, job=job.job_id)
        log.info("submitted %s: %s", submitted[0].job_id.split("_")[0], ", ".join(identities))


def watch(record: SweepRecord, jobs: Sequence[Job]) -> None:
    """Wait until every job has ended; what ended without a word is entered in the record."""
    waiting = {job.id: job for job in jobs}
    missed: dict[str, int] = dict.fromkeys(waiting, 0)
    while waiting:
        time.sleep(_POLL)
        try:
            queued = queued_jobs()
        except UserError as error:
            log.warning("%s; ask again", error)
            continue
        entries = record.entries()
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
    if is_lost(record, job) or entry["error"]:
        return
    printed = record.folder / "slurm" / f"{entry['job']}_0_log.err"
    if printed.is_file():
        reason = f"SLURM job {entry['job']} ended without a word; see {printed}"
        record.update(job.id, status="failed", error=reason)
    else:
        record.update(job.id, error=f"SLURM job {entry['job']} was cancelled before it started")


def _executor(
    folder: Path, settings: SlurmConfig, config: TrainConfig, after: str | None
) -> submitit.SlurmExecutor:
    """What submits jobs; ``after`` is the job that has to be finished before."""
    executor = submitit.SlurmExecutor(folder=folder / "slurm")
    optional = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "gpus_per_node": settings.gpus_per_node,
        "mem": None if settings.mem_gb is None else f"{round(1024 * settings.mem_gb)}MB",
        "dependency": None if after is None else f"afterok:{after}",
    }
    executor.update_parameters(
        job_name=folder.name,
        time=settings.timeout_min,
        nodes=config.trainer.nodes,
        ntasks_per_node=config.trainer.devices,
        cpus_per_task=settings.cpus_per_task,
        signal_delay_s=settings.signal_delay_s,
        array_parallelism=settings.array_parallelism,
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
