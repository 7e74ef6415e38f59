"""Case: the whole command line, from cold caches, from warm ones and again."""

from __future__ import annotations

import tempfile

from mlkd.bench.command import train
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
            train("--help", ["--help"]),
            train("--cfg job", ["--cfg", "job"]),
            train("a refusal", ["student.botleneck=3"], status=2),
            train("chain, cold caches", command),
            train("chain, warm caches, another seed", [*command, "seed=1"]),
            train("chain, finished before", command),
        ]
