"""SLURM: which task of a job this process is, and how a job asks to be run again.

One owner of requeue: SLURM sends SIGUSR2 before the time limit, the training saves and stops, and
the job asks for its requeue once everything is on disk. On preemption and ``scontrol requeue``
SLURM sends SIGTERM and requeues by itself. submitit's own handler of SIGUSR2 is replaced, since it
would requeue or fail the job without a checkpoint, and Lightning's is switched off.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from mlkd.output.errors import Interrupted

TIMEOUT_SIGNAL = signal.SIGUSR2
"""What SLURM sends some time before the limit (submitit's choice)."""
_KILLED_WITHIN = 120.0
"""Seconds in which SLURM ends the processes of a job that was requeued."""
_PATIENCE = 600.0
"""Seconds in which a requeue is asked for again, unless SLURM ends the job at its limit before;"""
_PAUSE = 5.0
"""so many lie between two tries."""
REQUEUED = "requeued"
"""What is said of a job that SLURM will run again."""


class NotRequeued(Exception):
    """A job cannot be requeued; the message is SLURM's."""


def task_rank() -> int:
    """Number of this task among the tasks of its job; 0 outside of one."""
    return int(os.environ.get("SLURM_PROCID", 0))


def job_number() -> str:
    """Number of this job, ``<array>_<task>`` in an array.

    ``SLURM_JOB_ID`` will not do: that of an array's last task is the number of the whole array.
    """
    if (array := os.environ.get("SLURM_ARRAY_JOB_ID")) is None:
        return os.environ["SLURM_JOB_ID"]
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"


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


def requeue(tell: Callable[[str], None]) -> NoReturn:
    """Ask SLURM to run this job again, and wait for the end: returning would finish the job.

    SLURM may not answer just now, so it is asked until it ends the job at its limit.

    Args:
        tell: Told what came of each try, in a line.

    Raises:
        NotRequeued: It was asked in vain for ten minutes, or cannot be asked from here.
        Interrupted: The job is ended.
    """
    end = time.monotonic() + _PATIENCE
    while task_rank() == 0:
        try:
            _ask_for_requeue(job_number())
            tell(REQUEUED)
            break
        except NotRequeued as error:
            tell(f"could not be requeued: {error}; the same command goes on")
            if isinstance(error.__cause__, FileNotFoundError) or time.monotonic() > end:
                raise
        time.sleep(_PAUSE)
    # The other tasks end with the first one.
    time.sleep(_KILLED_WITHIN if task_rank() == 0 else _PATIENCE + _KILLED_WITHIN)
    os._exit(1)


def _ask_for_requeue(job: str) -> None:
    """Ask once.

    Raises:
        NotRequeued: SLURM refuses.
    """
    try:
        subprocess.run(
            ["scontrol", "requeue", job], check=True, timeout=60, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as error:
        if error.returncode > 0:  # otherwise it ended with the job, which SLURM ends to requeue it
            raise NotRequeued(" ".join(str(error.stderr).split())[:200]) from error
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NotRequeued(str(error)) from error


def _stop(number: int, frame: Any) -> None:
    raise Interrupted(signal.Signals(number).name)
