"""``python -m mlkd.evaluate model=<folder>``: score any sentence encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlkd.commands import EvaluateConfig
from mlkd.config import run
from mlkd.errors import UserError
from mlkd.inputs import EncoderConfig

_TIMED = 320
"""Sentences that ``latency=true`` times: ten batches."""


def main(config: EvaluateConfig) -> float | None:
    """Print the table, write the JSON, give the selecting dev score where there is one."""
    from rich.console import Console

    from mlkd.files import write_json
    from mlkd.measure import Evaluation, open_encoder_folder
    from mlkd.metrics.scoring import select_value
    from mlkd.metrics.sets import load_sets
    from mlkd.metrics.table import row_of, rows_to_table

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
    racers = _racers(config, folder, teacher) if config.latency else {}
    evaluation = Evaluation(
        sets,
        bootstrap=config.eval.bootstrap,
        max_tokens=config.max_tokens or _longest(_run_of(folder)),
        teacher=teacher,
        accelerator=config.accelerator,
        precision=config.eval.precision,
    )
    speed = evaluation.speed({"model": evaluation.encoder(folder)})["model"]
    measured = evaluation.measure(folder) | speed
    output = Path(config.output) if config.output else Path("outputs", "evaluation.json")
    if config.latency:
        measured["race"] = _race(racers, [text for s in sets for text in s.left])
    write_json(output, measured)
    Console(width=120).print(rows_to_table([row_of(folder.name, measured)]))
    print(f"scores: {output}")
    dev = any(item.split == "dev" for item in sets)
    return select_value(measured["scores"]) if dev else None


def _run_of(student: Path) -> Path | None:
    """The run whose hand-over a folder is."""
    run = student.absolute().parent
    return run if student.name == "student" and (run / "run.json").is_file() else None


def _longest(run: Path | None) -> int:
    """How many tokens the models of a run read at most."""
    from mlkd.runs.record import read_record

    return 64 if run is None else int(read_record(run)["config"]["data"]["max_tokens"])


def _racers(config: EvaluateConfig, student: Path, teacher: Path) -> dict[str, Path]:
    """Teacher, assistant, student and whatever else is to be timed, by name."""
    from mlkd.deploy.race import assistant_of, is_onnx

    run = _run_of(student)
    assistant = assistant_of(run) if run else None
    folders = {"teacher": teacher} | ({"assistant": assistant} if assistant else {})
    folders["student"] = student
    for given in config.compare:
        folder = Path(given).expanduser()
        if not (is_onnx(folder) or (folder / "modules.json").is_file()):
            raise UserError(
                f"compare={given}: no encoder; give a sentence-transformers folder or an exported "
                "onnx folder"
            )
        folders["/".join(folder.absolute().parts[-2:])] = folder
    return folders


def _race(folders: dict[str, Path], texts: list[str]) -> dict[str, Any]:
    """Time encoders beside each other and print it."""
    from rich.console import Console

    from mlkd.deploy.race import compare_speed, speed_table

    distinct = sorted(set(texts))
    spread = range(0, len(distinct), -(-len(distinct) // _TIMED))
    measured = compare_speed(folders, [distinct[i] for i in spread])
    Console(width=140).print(speed_table(measured))
    return measured


if __name__ == "__main__":
    run("evaluate", EvaluateConfig, main)
