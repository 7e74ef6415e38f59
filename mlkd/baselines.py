"""``python -m mlkd.baselines``: the chain beside what users would do instead."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from rich.console import Console

from mlkd.config.bench import BaselinesConfig
from mlkd.config.compose import run
from mlkd.deploy.source import check_packages
from mlkd.metrics.table import rows_of, rows_to_table
from mlkd.output.errors import UserError
from mlkd.recipes.early import check_early, refuse_unread
from mlkd.recipes.recipe import links


def main(config: BaselinesConfig) -> None:
    """Measure all of them, print the table and where it is written.

    Raises:
        UserError: There is no student to compare, or a package is missing.
    """
    refuse_unread(config, HydraConfig.get().overrides.task if HydraConfig.initialized() else ())
    check_early(config)
    check_packages(["onnx_int8", "onnx_q4"])
    last = links(config)[-1]
    if not (last.trains_student and last.settings.whole):
        raise UserError(f"stage={config.stage} leaves no trained student to compare")

    from mlkd.bench.baselines import measure_baselines, write_baselines

    name, measured = measure_baselines(config)
    Console(width=160).print(rows_to_table(rows_of(measured)))
    print(f"baselines: {write_baselines(config, name, measured)}")


if __name__ == "__main__":
    run("baselines", BaselinesConfig, main)
