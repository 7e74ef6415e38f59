"""What the machine gives: matrix products a second, the clock, peak memory."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import functional

from mlkd.machine import onednn
from mlkd.machine.hardware import slow_mkl
from mlkd.storage.process import resident_mib

_SECONDS = 0.1
_SHAPES = ((2048, 384, 1536), (2048, 1536, 384), (1024, 1024, 1024), (2048, 2048, 2048))
"""Rows, inner and outer width of products that are timed: MiniLM's own and two square ones."""
_GPU_SHAPE = (8192, 8192, 8192)
"""What it takes to keep a GPU busy."""
_GPU_QUEUE = 50
"""Products that a GPU gets at once: waiting for each would take as long as the small ones."""


def matrix_gflops(precision: str, device: torch.device, clock: str) -> float:
    """Best rate of plain matrix products over some shapes (1e9 floating-point operations a second).

    Where MKL is slow oneDNN takes part, as in training.

    Args:
        precision: ``fp32`` or ``bf16``.
        device: Where they run.
        clock: See :func:`clock_seconds`.
    """
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    on_gpu = device.type == "cuda"
    together = _GPU_QUEUE if on_gpu else 1
    multipliers: list[Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = [functional.linear]
    if slow_mkl() and device.type == "cpu" and precision == "fp32":
        multipliers.append(onednn.product)
    best = 0.0
    for rows, inner, outer in (*_SHAPES, _GPU_SHAPE) if on_gpu else _SHAPES:
        left = torch.randn(rows, inner, device=device, dtype=kind)
        right = torch.randn(outer, inner, device=device, dtype=kind)
        for multiply in multipliers:
            multiply(left, right)
            synchronize(device)
            start, wall, count = clock_seconds(clock), time.perf_counter(), 0
            while time.perf_counter() - wall < _SECONDS:
                for _ in range(together):
                    multiply(left, right)
                synchronize(device)
                count += together
            rate = 2 * rows * inner * outer * count / (clock_seconds(clock) - start) / 1e9
            best = max(best, rate)
    return best


@contextmanager
def scratch(output: str) -> Iterator[Path]:
    """A folder on the disk of the results that is gone afterwards."""
    Path(output).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as name:
        yield Path(name)


def clock_seconds(clock: str) -> float:
    """``wall``: time that passes; ``cpu``: this process's CPU time a thread.

    On a shared machine the second says what the process would take alone; it means nothing where
    work waits for a GPU or a disk.
    """
    if clock == "wall":
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Start measuring the peak memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux: the peak stays that of the whole process
        pass


def peak_mib(device: torch.device) -> float:
    """Largest memory since :func:`reset_peak`: the GPU's, or what the process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resident_mib("VmHWM")


class AnonymousPeak:
    """Largest resident memory of this process that is no page of a mapped file, while open.

    The kernel drops pages of files when memory is short; these are what a program really needs.
    """

    def __init__(self) -> None:
        self.mib = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> AnonymousPeak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.mib = max(self.mib, resident_mib("RssAnon"))
            if self._over.wait(0.01):
                return
