"""The processes of one run on one machine, the others started by the first."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mlkd.config.training import TrainerConfig
from mlkd.output.errors import UserError
from mlkd.output.started import started_processes

log = logging.getLogger(__name__)

_PATIENCE = 60.0
"""Seconds that the others have to end after the first one has;"""
_HASTE = 3.0
"""so many if it has failed: they may still wait for it."""
_GRACE = 20.0
"""Seconds in which the first process may notice that another one has failed."""


@contextmanager
def together(config: TrainerConfig, command: Sequence[str]) -> Iterator[None]:
    """Have as many processes as a run needs: those of torchrun or srun, or started by this one.

    Args:
        config: How many.
        command: What the others run on this machine: arguments of Python.

    Raises:
        UserError: torchrun or srun has started another number, or several machines are needed.
    """
    found, wanted = started_processes(), config.processes
    if found == wanted:
        yield
        return
    needs = f"trainer.devices={config.devices} trainer.nodes={config.nodes}: needs {wanted}"
    if found > 1:
        raise UserError(
            f"{needs} processes, but torchrun or srun has started {found}; trainer.devices is the "
            "number on each of trainer.nodes machines"
        )
    if config.nodes > 1:
        raise UserError(
            f"{needs} processes; start them with -m and hydra/launcher=slurm, srun or torchrun"
        )
    before = dict(os.environ)
    others: list[subprocess.Popen[bytes]] = []
    left = threading.Event()
    try:
        _take_place(0, wanted, _free_port())
        for rank in range(1, wanted):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            others.append(subprocess.Popen([sys.executable, *command], env=os.environ | own))
        threading.Thread(target=_watch, args=(others, left), daemon=True).start()
        yield
        left.set()
        _end(others, _PATIENCE)
    except BaseException:
        left.set()
        _end(others, _HASTE)
        raise
    finally:
        os.environ.clear()
        os.environ.update(before)


def _take_place(rank: int, world: int, port: int) -> None:
    """Say to this process and those that it starts what torchrun would."""
    threads = max(1, len(os.sched_getaffinity(0)) // world)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _watch(processes: Sequence[subprocess.Popen[bytes]], left: threading.Event) -> None:
    """End this process once another one has failed, for which it may wait for a day."""
    while not left.wait(1.0):
        for rank, process in enumerate(processes, 1):
            if process.poll() and not left.wait(_GRACE):
                log.error("process %d of this run ended with status %d", rank, process.returncode)
                _end(processes, 0.0)
                os._exit(1)


def _end(processes: Sequence[subprocess.Popen[bytes]], patience: float) -> None:
    """Wait for processes that end when the first one does; kill those that do not."""
    end = time.monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
