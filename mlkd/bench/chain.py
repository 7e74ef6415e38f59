"""Case: the whole command line, from cold caches, from warm ones and again."""

from __future__ import annotations

import tempfile

from mlkd.bench.command import run_training
from mlkd.bench.contest import TableLine
from mlkd.config.bench import BenchmarkConfig


def measure(config: BenchmarkConfig) -> list[TableLine]:
    """Seconds of ``python -m mlkd.train`` until it trains and until it ends.

    The demo chain with a few steps a stage: what is measured is all but the steps.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["data=demo", "eval=demo", "eval.bootstrap=0", f"output_dir={folder}"]
        command.append("limits.max_steps=10")
        if config.trainer.threads:
            command.append(f"trainer.threads={config.trainer.threads}")
        return [
            run_training("--help", ["--help"]),
            run_training("--cfg job", ["--cfg", "job"]),
            run_training("a refusal", ["student.botleneck=3"], status=2),
            run_training("chain, cold caches", command),
            run_training("chain, warm caches, another seed", [*command, "seed=1"]),
            run_training("chain, finished before", command),
        ]
