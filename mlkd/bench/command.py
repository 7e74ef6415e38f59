"""``python -m mlkd.train`` in a process of its own, timed by the wall clock."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

from mlkd.bench.contest import TableLine
from mlkd.output.errors import UserError

_FIRST_STEP = re.compile(r"link \w+:")
"""What the first link's bar begins with, which opens when its first step begins."""


def run_training(
    name: str, arguments: list[str], *, status: int = 0, stop: bool = False
) -> TableLine:
    """Run a training and say how long it took.

    Args:
        name: Of the line.
        arguments: Overrides.
        status: What the process must end with.
        stop: Ask it to stop once the first step has begun.

    Returns:
        ``seconds`` until the end (without ``stop``) and ``first_step``, until that began.

    Raises:
        UserError: The process ended otherwise.
    """
    start, first, tail = time.perf_counter(), None, ""
    with subprocess.Popen(
        [sys.executable, "-m", "mlkd.train", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    ) as process:
        assert process.stderr is not None
        while part := process.stderr.read1(4096):  # type: ignore[attr-defined]
            tail = (tail + part.decode(errors="replace"))[-4000:]
            if first is None and _FIRST_STEP.search(tail):
                first = time.perf_counter() - start
                if stop:
                    process.terminate()
    if process.returncode != status:
        raise UserError(f"{name}: ended with status {process.returncode}: {tail[-500:]}")
    line: TableLine = {"name": name}
    if not stop:
        line["seconds"] = time.perf_counter() - start
    return line if first is None else line | {"first_step": first}
