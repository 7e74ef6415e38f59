"""Case: the whole command line, from cold caches, from warm ones and again."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from mlkd.bench.contest import Line
from mlkd.commands import BenchmarkConfig
from mlkd.errors import UserError


def measure(config: BenchmarkConfig) -> list[Line]:
    """Seconds of ``python -m mlkd.train`` until it trains and until it ends, by the wall clock.

    The demo chain with a few steps a stage: what is measured is all but the steps.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["data=demo", "eval=demo", "eval.bootstrap=0", f"output_dir={folder}"]
        command += [f"stages.{stage}.max_steps=10" for stage in config.stages]
        if config.trainer.threads:
            command.append(f"trainer.threads={config.trainer.threads}")
        return [
            _run("--help", ["--help"]),
            _run("a refusal", ["student.botleneck=3"], status=2),
            _run("chain, cold caches", command),
            _run("chain, warm caches, another seed", [*command, "seed=1"]),
            _run("chain, finished before", command),
        ]


def _run(name: str, arguments: list[str], status: int = 0) -> Line:
    """Run a command; ``first_step`` is when the first stage opens its bar."""
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
            if first is None and "stage assistant:" in tail:
                first = time.perf_counter() - start
    if process.returncode != status:
        raise UserError(f"{name}: ended with status {process.returncode}: {tail[-500:]}")
    line: Line = {"name": name, "seconds": time.perf_counter() - start}
    return line if first is None else line | {"first_step": first}
