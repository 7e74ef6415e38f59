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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlkd.config.compose import reporting
from mlkd.config.schema import TrainConfig
from mlkd.machine.cluster import TIMEOUT_SIGNAL, rank, requeue, stopped_by_signals
from mlkd.output.errors import Interrupted, UserError
from mlkd.output.secrets import guard_output, redact, redacted
from mlkd.runs.record import code_digest, environment
from mlkd.storage.files import write_json
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.tree import Job

log = logging.getLogger(__name__)


class JobFailed(Exception):
    """A job of a sweep failed; its log has the traceback."""


def write_job(record: SweepRecord, job: Job) -> None:
    """Write down what a job has to do, and with which code."""
    config = job.config.model_dump(mode="json")
    config["logger"] = redacted(config["logger"])
    config["logger"]["group"] = config["logger"]["group"] or record.folder.name
    content = {
        "config": config,
        "upto": job.upto,
        "name": job.name if job.is_cell else None,
        "code": code_digest(),
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
    enter: Callable[..., None] = record.update if rank() == 0 else lambda *args, **fields: None
    started = time.monotonic()
    runs: list[str] = []

    def announce(run: str) -> None:
        runs.append(run)
        enter(identity, runs=runs)
        if job["name"] and run.startswith(job["upto"]) and rank() == 0:
            record.link(job["name"], Path(job["config"]["output_dir"], "runs", run))

    path = record.log(identity)
    if rank() > 0:
        path = path.with_suffix(f".{rank()}.log")
    with _logging_to(path), stopped_by_signals():
        try:
            score = _work(job, announce)
        except (Interrupted, KeyboardInterrupt) as error:
            reason = str(error) or "SIGINT"
            log.info("stopped by %s; it goes on from here", reason)
            enter(identity, status="missing", error=f"stopped by {reason}")
            if reason == TIMEOUT_SIGNAL.name:
                requeue()
            raise
        except Exception as error:
            known = isinstance(error, UserError)
            line = str(error) if known else redact(f"{type(error).__name__}: {error}")
            log.error("error: %s", line, exc_info=None if known else error)
            enter(identity, status="failed", error=line.splitlines()[0][:500])
            raise JobFailed(line) from None  # SLURM's log shows it as it is
        seconds = round(time.monotonic() - started, 1)
        enter(identity, status="finished", error=None, score=score, seconds=seconds)


def _work(job: dict[str, Any], announce: Callable[[str], None]) -> float | None:
    """Run the chain, or what several chains share."""
    if job["code"] != code_digest():
        raise UserError(
            f"the code has changed since this job was submitted (then {job['version']}, now "
            f"{environment()['code']}); give the command of the sweep again"
        )
    from mlkd.recipes.ahead import prepare
    from mlkd.recipes.chain import run_chain  # torch and friends

    config = TrainConfig.model_validate(job["config"])
    if job["name"]:
        return run_chain(config, announce)
    prepare(config, job["upto"], announce)
    return None


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Also log to a file, which earlier lives of the job may have begun; no line has a secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    guard_output()
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


if __name__ == "__main__":
    with reporting(TrainConfig):
        try:
            run_job(Path(sys.argv[1]), sys.argv[2])
        except JobFailed:
            sys.exit(1)
