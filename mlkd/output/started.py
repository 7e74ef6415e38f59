"""Whether this process was started alone, or with others by torchrun or srun."""

from __future__ import annotations

import os

TORCHRUN = frozenset({"RANK", "WORLD_SIZE", "LOCAL_RANK"})
"""What torchrun tells each process."""
_SRUN = "SLURM_STEP_NUM_TASKS"
"""What srun tells each; a batch script itself has other variables of SLURM, but not this one."""


def by_torchrun() -> bool:
    """Whether torchrun started this process, or whatever tells it the same."""
    return os.environ.keys() >= TORCHRUN


def by_srun() -> bool:
    """Whether srun started this process."""
    return not by_torchrun() and _SRUN in os.environ


def started_processes() -> int:
    """How many processes were started together with this one, itself included."""
    if by_torchrun():
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ[_SRUN]) if by_srun() else 1


def is_first_here() -> bool:
    """Whether this process is the first of those on its machine, which speaks for them."""
    if by_torchrun():
        return int(os.environ["LOCAL_RANK"]) == 0
    return not by_srun() or int(os.environ.get("SLURM_LOCALID", 0)) == 0
