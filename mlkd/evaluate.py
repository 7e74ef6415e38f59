"""``python -m mlkd.evaluate model=<folder>``: score any sentence encoder."""

from __future__ import annotations

from pathlib import Path

from mlkd.commands import EvaluateConfig
from mlkd.config import run
from mlkd.errors import UserError
from mlkd.schema import EncoderConfig


def main(config: EvaluateConfig) -> float | None:
    """Print the table, write the JSON, give the selecting dev score where there is one."""
    from rich.console import Console

    from mlkd.files import write_json
    from mlkd.measure import measure, measure_speed, open_encoder_folder, table_row
    from mlkd.metrics.scoring import select_value
    from mlkd.metrics.sets import load_sets
    from mlkd.metrics.table import rows_to_table

    folder = Path(config.model).expanduser()
    if (folder / "run.json").is_file():
        folder = folder / "student"
    if not folder.exists() and "@" in config.model:
        name, revision = config.model.rsplit("@", 1)
        hub = EncoderConfig(name=name, revision=revision)
        folder = open_encoder_folder(hub, config.allow_download)
    if not (folder / "modules.json").is_file():
        raise UserError(
            f"model={config.model}: give a student folder, the folder of a finished run, a "
            "sentence-transformers folder, or a hub name as name@revision"
        )
    sets = load_sets(config.eval)
    teacher = open_encoder_folder(config.teacher, config.allow_download)
    measured = measure(
        folder,
        sets,
        config.eval,
        config.max_tokens,
        teacher=teacher,
        accelerator=config.accelerator,
    )
    speed = measure_speed({"model": folder}, sets, config.max_tokens, config.accelerator)
    measured |= speed["model"]
    output = Path(config.output) if config.output else Path("outputs", "evaluation.json")
    write_json(output, measured)
    Console(width=120).print(rows_to_table([table_row(folder.name, measured)]))
    print(f"scores: {output}")
    dev = any(item.split == "dev" for item in sets)
    return select_value(measured["scores"]) if dev else None


if __name__ == "__main__":
    run("evaluate", EvaluateConfig, main)
