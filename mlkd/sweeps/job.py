"""One job of a sweep: a cell, or what several cells share.

``python -m mlkd.sweeps.job <multirun folder> <id>`` is what the launchers start. What it does is
written down when the sweep is started, so later changes of ``conf/`` do not reach it.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from mlkd.config.compose import reporting
from mlkd.config.schema import TrainConfig
from mlkd.config.versions import code_versions
from mlkd.machine.cluster import (
    TIMEOUT_SIGNAL,
    NotRequeued,
    requeue,
    stopped_by_signals,
    task_rank,
)
from mlkd.output.errors import Interrupted, UserError
from mlkd.output.process import own_process
from mlkd.output.secrets import redact, redacted
from mlkd.runs.record import Run, environment
from mlkd.storage.files import write_json
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.tree import Job

log = logging.getLogger(__name__)

_SHARED_DISK = 20.0
"""Seconds after which what another machine has written is seen on a shared disk."""


class JobFailed(Exception):
    """A job of a sweep failed; its log has the traceback."""


def write_job(record: SweepRecord, job: Job) -> None:
    """Write down what a job has to do, and with which code."""
    config = job.config.model_dump(mode="json")
    config["logger"] = redacted(config["logger"])
    if job.config.logger.kind == "wandb":
        config["logger"]["group"] = config["logger"]["group"] or record.folder.name
    content = {
        "config": config,
        "upto": job.upto,
        "name": job.name if job.is_cell else None,
        "parent": job.parent,
        "code": code_versions(),
        "version": environment()["code"],
    }
    write_json(record.job(job.id), content)


def run_job(folder: Path, identity: str) -> None:
    """Run one job and enter what comes of it in the sweep's record.

    Raises:
        JobFailed: It failed.
        Interrupted: It was asked to stop; the same job goes on from there.
    """
    record = SweepRecord(folder)
    job = json.loads(record.job(identity).read_text(encoding="utf-8"))
    enter: Callable[..., None] = record.update if task_rank() == 0 else lambda *args, **fields: None
    started = time.monotonic()
    runs: list[str] = []

    def announce(run: Run) -> None:
        runs.append(run.id)
        enter(identity, runs=runs)
        if job["name"] and run.link == job["upto"] and task_rank() == 0:
            record.link(job["name"], run.folder)

    path = record.log(identity)
    if task_rank() > 0:
        path = path.with_suffix(f".{task_rank()}.log")
    with _logging_to(path), stopped_by_signals():
        try:
            with record.running(identity) if task_rank() == 0 else nullcontext():
                enter(identity, status="missing", error=None)  # that of an earlier life
                score = _work(record, job, announce)
        except (Interrupted, KeyboardInterrupt) as error:
            reason = str(error) or "SIGINT"
            log.info("stopped by %s; it goes on from here", reason)
            enter(identity, status="missing", error=f"stopped by {reason}")
            if reason == TIMEOUT_SIGNAL.name:
                _run_again(lambda line: enter(identity, error=line))
            raise
        except Exception as error:
            known = isinstance(error, UserError)
            line = str(error) if known else redact(f"{type(error).__name__}: {error}")
            log.error("error: %s", line, exc_info=None if known else error)
            enter(identity, status="failed", error=line.splitlines()[0][:500])
            raise JobFailed(line) from None  # SLURM's log shows it as it is
        seconds = round(time.monotonic() - started, 1)
        enter(identity, status="finished", error=None, score=score, seconds=seconds)


def _run_again(enter: Callable[[str], None]) -> None:
    """Have SLURM run this job again; the log and the record say what came of it."""

    def tell(line: str) -> None:
        log.info("%s", line)
        enter(line)

    with suppress(NotRequeued):  # it is in the record
        requeue(tell)


def _check_parent(record: SweepRecord, parent: str) -> None:
    """See that what the job waits for is there: SLURM may start it without.

    A dependency on a job that it has forgotten counts as fulfilled.

    Raises:
        UserError: It is not there.
    """
    end = time.monotonic() + _SHARED_DISK
    while (entry := record.entries()[parent])["status"] != "finished":
        if entry["status"] == "failed" or time.monotonic() > end:
            reason = f" ({entry['error']})" if entry["error"] else ""
            raise UserError(
                f"it was started before {parent}, which it needs and which is {entry['status']}"
                f"{reason}; the same command runs both"
            )
        time.sleep(1)


def _work(
    record: SweepRecord, job: dict[str, Any], announce: Callable[[Run], None]
) -> float | None:
    """Run the chain, or what several chains share."""
    if job["code"] != code_versions():
        raise UserError(
            f"the code has changed since this job was submitted (then {job['version']}, now "
            f"{environment()['code']}); give the command of the sweep again"
        )
    if job["parent"] is not None:
        _check_parent(record, job["parent"])
    from mlkd.metrics.table import print_table  # torch and friends
    from mlkd.recipes.ahead import run_shared
    from mlkd.recipes.run import run_chain

    config = TrainConfig.model_validate(job["config"])
    if job["name"]:
        return run_chain(config, announce, print_table).score
    run_shared(config, job["upto"], announce)
    return None


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Also log to a file, which earlier lives of the job may have begun; no line has a secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    own_process()
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


if __name__ == "__main__":
    with reporting(TrainConfig):
        try:
            run_job(Path(sys.argv[1]), sys.argv[2])
        except JobFailed:
            sys.exit(1)
