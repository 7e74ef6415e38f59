"""``python -m mlkd.baselines``: the chain beside what users would do instead."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from mlkd.config.commands import BaselinesConfig
from mlkd.config.compose import run
from mlkd.deploy.source import check_packages
from mlkd.output.errors import UserError
from mlkd.recipes.early import check_early, refuse_unread
from mlkd.recipes.recipe import links


def main(config: BaselinesConfig) -> None:
    """Measure all of them, print the table and write it with its provenance."""
    refuse_unread(config, HydraConfig.get().overrides.task if HydraConfig.initialized() else ())
    check_early(config)
    check_packages(["onnx_int8", "onnx_q4"])
    last = links(config)[-1]
    if not (last.trains_student and last.settings.whole):
        raise UserError(f"stage={config.stage} leaves no trained student to compare")

    from rich.console import Console

    from mlkd.bench.baselines import measure_baselines
    from mlkd.machine.hardware import describe_hardware, device_of
    from mlkd.metrics.table import records_of, rows_of, rows_to_table, to_markdown
    from mlkd.output.secrets import redacted
    from mlkd.runs.record import environment, now
    from mlkd.storage.files import replacing, write_json, write_rows

    name, measured = measure_baselines(config)
    rows = rows_of(measured)
    Console(width=160).print(rows_to_table(rows))
    given = config.output
    output = Path(given) if given else Path(config.output_dir, f"baselines-{name}.json")
    provenance = {
        "finished": now(),
        "hardware": describe_hardware(device_of(config.trainer.accelerator)),
        "seed": config.seed,
    }
    content = {"environment": environment(), "config": redacted(config.model_dump(mode="json"))}
    write_json(output, provenance | content | {"models": measured})
    write_rows(output.with_suffix(".csv"), [row | provenance for row in records_of(measured)])
    with replacing(output.with_suffix(".md")) as part:
        part.write_text(to_markdown(rows), encoding="utf-8")
    print(f"baselines: {output}")


if __name__ == "__main__":
    run("baselines", BaselinesConfig, main)
