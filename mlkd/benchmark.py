"""``python -m mlkd.benchmark``: mlkd beside sentence-transformers' trainer, in one run."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from rich.console import Console

from mlkd.config.bench import BenchmarkConfig
from mlkd.config.compose import run
from mlkd.output.errors import UserError
from mlkd.output.extras import need
from mlkd.recipes.early import refuse_unread


def main(config: BenchmarkConfig) -> None:
    """Measure the cases, print a table each and write the JSON.

    Raises:
        UserError: None of the cases reads a setting, or the peer's trainer lacks ``accelerate``,
            which is an extra.
    """
    words = HydraConfig.get().overrides.task
    refuse_unread(config, [word for word in words if not word.startswith(("student", "init"))])
    keys = [word.partition("=")[0].lstrip("+") for word in words]
    own = [key.removeprefix("benchmark.") for key in keys if key.startswith("benchmark.")]
    for reason in config.benchmark.unread(own):
        raise UserError(f"benchmark.{reason}")
    need(["accelerate"], "benchmark", "sentence-transformers' trainer, the peer,")

    from mlkd.bench import measure_cases, save
    from mlkd.bench.table import terminal

    console = Console(width=160)
    for name, lines in measure_cases(config):
        console.print(terminal(name, lines))
        save(config, name, lines)
    print(f"numbers: {config.benchmark.output}")


if __name__ == "__main__":
    run("benchmark", BenchmarkConfig, main)
