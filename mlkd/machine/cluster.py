"""SLURM: which task of a job this process is, and how a job asks to be run again.

One owner of requeue: SLURM sends SIGUSR2 before the time limit, the training saves and stops, and
the job asks for its requeue once everything is on disk. On preemption and ``scontrol requeue``
SLURM sends SIGTERM and requeues by itself. submitit's own handler of SIGUSR2 is replaced, since it
would requeue or fail the job without a checkpoint, and Lightning's is switched off.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from mlkd.output.errors import Interrupted

log = logging.getLogger(__name__)

TIMEOUT_SIGNAL = signal.SIGUSR2
"""What SLURM sends some time before the limit (submitit's choice)."""
_KILLED_WITHIN = 120.0
"""Seconds in which SLURM ends the processes of a job that was requeued."""


def rank() -> int:
    """Number of this task among the tasks of its job; 0 outside of one."""
    return int(os.environ.get("SLURM_PROCID", 0))


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise :class:`Interrupted` on SIGTERM and on SLURM's signal before the time limit.

    While a training runs, its own handlers take over, so that it stops between two steps.
    """
    old = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, TIMEOUT_SIGNAL)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def requeue() -> NoReturn:
    """Ask SLURM to run this job again, and wait for the end: returning would finish the job."""
    if rank() == 0:
        job = os.environ["SLURM_JOB_ID"]
        log.info("requeue job %s", job)
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)
    time.sleep(_KILLED_WITHIN)
    os._exit(1)


def _stop(number: int, frame: Any) -> None:
    raise Interrupted(signal.Signals(number).name)
