"""``python -m mlkd.benchmark``: mlkd beside sentence-transformers' trainer, in one run."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig

from mlkd.config.commands import BenchmarkConfig
from mlkd.config.compose import run
from mlkd.output.errors import UserError
from mlkd.output.extras import need
from mlkd.recipes.early import refuse_unread


def main(config: BenchmarkConfig) -> None:
    """Measure the cases, print a table each and write the JSON.

    Raises:
        UserError: The peer's trainer lacks ``accelerate``, which is an extra, or would use several
            GPUs; a GPU's work is to be measured in CPU time.
    """
    words = HydraConfig.get().overrides.task
    refuse_unread(config, [word for word in words if not word.startswith(("student", "init"))])
    need(["accelerate"], "benchmark", "sentence-transformers' trainer, the peer,")
    import torch
    from rich.console import Console

    from mlkd.bench import measure_cases, save
    from mlkd.bench.table import terminal
    from mlkd.machine.hardware import device_of

    if device_of(config.trainer.accelerator).type == "cuda":
        if config.benchmark.clock == "cpu":
            raise UserError("benchmark.clock=cpu: says nothing about a GPU; allowed there: wall")
        if torch.cuda.device_count() > 1:
            raise UserError("the peer would use every GPU; set CUDA_VISIBLE_DEVICES=0")
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    console = Console(width=160)
    for name, lines in measure_cases(config):
        console.print(terminal(name, lines))
        save(config, name, lines)
    print(f"numbers: {config.benchmark.output}")


if __name__ == "__main__":
    run("benchmark", BenchmarkConfig, main)
