"""Launchers on this machine: one job after the other in this process, or a process a job."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mlkd.config.sweeps import LocalConfig
from mlkd.output.errors import Interrupted
from mlkd.sweeps.job import JobFailed, run_job
from mlkd.sweeps.pace import Pace
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.tree import Job

log = logging.getLogger(__name__)

_POLL = 0.2
"""Seconds between looks at the processes."""


def run_in_turn(record: SweepRecord, jobs: Sequence[Job]) -> None:
    """Run the jobs one after the other in this process; a failed one stops only what needs it."""
    pace = Pace(len(jobs))
    for done, job in enumerate(jobs):
        if not is_lost(record, job):
            log.info("%s: %s (%s)", pace.news(done, 1), job.id, job.label)
            with suppress(JobFailed):  # it is in the record
                run_job(record.folder, job.id)


def run_in_processes(record: SweepRecord, jobs: Sequence[Job], settings: LocalConfig) -> None:
    """Run each job in a process of its own, several at a time.

    Each process has a GPU of its own, or its share of the CPU cores.
    """
    gpus = _gpus()
    cores = len(os.sched_getaffinity(0))
    slots = list(range(settings.processes or len(gpus) or cores))
    threads = max(1, cores // len(slots))
    waiting = list(jobs)
    running: dict[str, tuple[int, subprocess.Popen[bytes]]] = {}
    pace, kills = Pace(len(jobs)), _memory_kills()
    try:
        while waiting or running:
            for identity, (slot, process) in list(running.items()):
                if process.poll() is not None:
                    del running[identity]
                    slots.append(slot)
                    _note_death(record, identity, process.returncode, _memory_kills() > kills)
                    kills = _memory_kills()
            for job in list(waiting):
                if not slots or job.parent in running or job.parent in {j.id for j in waiting}:
                    continue
                waiting.remove(job)
                if not is_lost(record, job):
                    slot = slots.pop(0)
                    process = _start(record, job, _environment(slot, gpus, threads))
                    running[job.id] = slot, process
            if line := pace.news(len(jobs) - len(waiting) - len(running), len(running)):
                log.info("%s", line)
            time.sleep(_POLL)
    except (KeyboardInterrupt, Interrupted):
        for _, process in running.values():
            process.terminate()  # each saves and stops
        for _, process in running.values():
            process.wait()
        raise


def is_lost(record: SweepRecord, job: Job) -> bool:
    """Whether what a job waits for has ended unfinished; this is then entered for the job too."""
    parent = record.entries()[job.parent] if job.parent else None
    if parent is None or parent["status"] == "finished":
        return False
    reason = f" ({parent['error']})" if parent["error"] else ""
    words = f"not run: {parent['id']} is {parent['status']}{reason}"
    record.update(job.id, status="missing", error=words[:500])
    return True


def _start(record: SweepRecord, job: Job, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a job; what libraries print goes to a file beside its log."""
    path = record.log(job.id).with_suffix(".out")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlkd.sweeps.job", str(record.folder), job.id]
    with path.open("ab") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output)


def _environment(slot: int, gpus: list[str], threads: int) -> dict[str, str]:
    """Environment of a process: its number of threads, and its GPU if there are any."""
    own = {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    own["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    if gpus:
        own["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return os.environ | own


def _note_death(record: SweepRecord, identity: str, status: int, memory_ran_out: bool) -> None:
    """Enter that a process ended without entering anything itself: it was killed."""
    entry = record.entries()[identity]
    if status != 0 and entry["status"] == "missing" and entry["error"] is None:
        words = f"ended with status {status} and no word"
        if status < 0:
            words = f"was killed by {signal.Signals(-status).name}"
            if status == -signal.SIGKILL and memory_ran_out:
                words = "was killed for its memory; fewer hydra.launcher.processes need less"
        path = record.log(identity).with_suffix(".out")
        record.update(identity, status="failed", error=f"{words}; see {path}")


def _memory_kills() -> int:
    """How many processes the system has killed for their memory so far; 0 where it does not say."""
    with suppress(OSError):
        found = re.search(r"^oom_kill (\d+)", Path("/proc/vmstat").read_text(), re.MULTILINE)
        return int(found.group(1)) if found else 0
    return 0


def _gpus() -> list[str]:
    """GPUs that this process may use, by number or name; without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    # A slice of a GPU has an indented line of its own.
    whole = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return [str(i) for i in range(whole)] if not listed.returncode else []
