"""``python -m mlkd.train -m ...``: plan a sweep, run what is missing, say what came of it."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mlkd.config.compose import composing, reporting
from mlkd.config.schema import TrainConfig
from mlkd.config.sweeps import LocalConfig, SlurmConfig
from mlkd.output.errors import Interrupted, UserError
from mlkd.output.extras import need
from mlkd.output.process import own_process
from mlkd.recipes.identity import link_keys
from mlkd.recipes.recipe import links
from mlkd.runs.index import Finished, finished_runs
from mlkd.storage.files import digest
from mlkd.sweeps.grid import Cell, Request, make_cells, read_request
from mlkd.sweeps.job import write_job
from mlkd.sweeps.local import run_in_processes, run_in_turn
from mlkd.sweeps.logs import worth_reading
from mlkd.sweeps.plan import describe_plan, summary_table
from mlkd.sweeps.queue import patiently, queued_jobs
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.status import this_process
from mlkd.sweeps.tree import Job, make_jobs

log = logging.getLogger(__name__)


def main(overrides: Sequence[str]) -> None:
    """Run the sweep of a command line; the process ends with status 1 unless all cells finished."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    own_process()
    with reporting(TrainConfig):
        command = shlex.join(["python", "-m", "mlkd.train", "-m", *overrides])
        with composing():
            request = read_request(overrides)
            record = _search(request, command) if request.sweep.optuna else _grid(request, command)
        finished = print_outcome(record)
    if not finished:
        sys.exit(1)


def _grid(request: Request, command: str) -> SweepRecord:
    """Run all combinations."""
    cells, impossible = make_cells(request)
    identity = digest(sorted(cell.id for cell in cells), length=8)
    folder = Path(cells[0].config.output_dir, "multirun", f"{request.sweep.name}-{identity}")
    record = SweepRecord(folder)
    run_cells(record, request, cells, impossible, command)
    return record


def _search(request: Request, command: str) -> SweepRecord:
    """Run cells that Optuna draws."""
    need(["optuna"], "optuna", "sweep.optuna")
    from mlkd.sweeps.search import search

    return search(request, command)


def run_cells(
    record: SweepRecord,
    request: Request,
    cells: Sequence[Cell],
    impossible: Mapping[str, str],
    command: str,
    only: Collection[str] | None = None,
) -> None:
    """Run the cells that are not finished, after what they share.

    Args:
        record: Where to enter what comes of them.
        request: The sweep and its launcher.
        cells: All cells.
        impossible: Combinations that are left out, and why.
        command: What the user gave.
        only: Run only these cells, by id.
    """
    several = any(cell.config.trainer.processes > 1 for cell in cells)
    if several and not isinstance(request.launcher, SlurmConfig):
        raise UserError("trainer.devices and trainer.nodes above 1 need hydra/launcher=slurm")
    jobs = make_jobs(cells)
    output_dir = cells[0].config.output_dir
    known = finished_runs(Path(output_dir))
    launcher = request.launcher
    name = "this process" if launcher is None else launcher.kind
    entries = record.entries()
    queued = _queued(entries) if isinstance(launcher, SlurmConfig) else set()
    wanted = {job.id for job in jobs if job.is_cell} if only is None else only
    pending = [job for job in unfinished(jobs, wanted, entries, known) if job.id not in queued]
    log.info("sweep %s, %s", request.sweep.name, record.folder)
    for line in describe_plan(jobs, pending, impossible, known, name):
        log.info("%s", line)
    if queued:
        log.info("still queued or running on SLURM since an earlier call: %d jobs", len(queued))
    fields = {job.id: _finished(job, known) for job in jobs if job.key in known}
    unknown = {"status": "missing", "error": None, "job": None, "score": None, "seconds": None}
    fields |= {job.id: unknown | {"runs": [], "key": job.key} for job in pending}
    head: dict[str, Any] = {"name": request.sweep.name, "command": command, "launcher": name}
    head |= {"output_dir": output_dir, "impossible": dict(impossible), "driver": this_process()}
    record.start(head, jobs, fields)
    for job in pending:
        write_job(record, job)
    if launcher is None:
        run_in_turn(record, pending)
    elif isinstance(launcher, LocalConfig):
        run_in_processes(record, pending, launcher)
    else:
        from mlkd.sweeps.slurm import submit, watch

        submit(record, pending, launcher)
        try:
            watch(record, [job for job in jobs if job in pending or job.id in queued])
        except (KeyboardInterrupt, Interrupted):
            log.info("the jobs go on; python -m mlkd.sweeps %s says where they are", record.folder)
            raise


def unfinished(
    jobs: Sequence[Job],
    wanted: Collection[str],
    entries: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, Finished],
) -> list[Job]:
    """Wanted cells that have no finished run, and the shared jobs that they need."""
    needed: list[Job] = []
    for job in reversed(jobs):
        is_needed = job.id in wanted or any(other.parent == job.id for other in needed)
        entry = entries.get(job.id)
        done = job.key in known and (known[job.key].is_reported or not job.is_cell)
        if job.upto is None:
            done = (
                entry is not None
                and entry["status"] == "finished"
                and entry.get("key") == job.key  # it has no run to be known by
            )
        if is_needed and not done:
            needed.append(job)
    return needed[::-1]


def print_outcome(record: SweepRecord) -> bool:
    """Print the cells and where the record is; gives whether all are finished."""
    content = record.read()
    cells = content["cells"]
    Console(width=160).print(summary_table(cells, finished_runs(Path(content["output_dir"]))))
    left = [entry for entry in cells if entry["status"] != "finished"]
    shared = [entry for entry in content["shared"] if entry["status"] != "finished"]
    for entry, path in worth_reading(record, [*shared, *left]):
        log.info("%s %s, log: %s", entry["id"], entry["status"], path)
    if left:
        log.info(
            "%d of %d cells are not finished; the same command runs them", len(left), len(cells)
        )
    log.info("sweep: %s", record.path)
    return not left


def _finished(job: Job, known: Mapping[str, Finished]) -> dict[str, Any]:
    """Entry of a job whose last run exists."""
    assert job.upto is not None
    names, keys = [link.name for link in links(job.config)], link_keys(job.config)
    upto = [keys[name] for name in names[: names.index(job.upto) + 1]]
    runs = [known[key].id for key in upto if key in known]
    score = known[job.key].score
    return {"status": "finished", "error": None, "key": job.key, "runs": runs, "score": score}


def _queued(entries: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Entries whose SLURM job of an earlier call still waits or runs."""
    numbers = patiently(queued_jobs)
    return {identity for identity, entry in entries.items() if entry["job"] in numbers}
