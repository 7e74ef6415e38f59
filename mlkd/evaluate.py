"""``python -m mlkd.evaluate model=<folder>``: score any sentence encoder."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlkd.config.commands import EvaluateConfig
from mlkd.config.compose import CONF_DIR, run
from mlkd.config.inputs import EncoderConfig, EvalConfig
from mlkd.output.errors import UserError

if TYPE_CHECKING:
    from mlkd.metrics.sets import EvalSet

_TIMED = 320
"""Sentences that ``latency=true`` times: ten batches."""
_LONGEST = 64
"""How many tokens a model without a run reads at most."""


def main(config: EvaluateConfig) -> float | None:
    """Print the table, write the JSON, give the selecting dev score where there is one."""
    from rich.console import Console

    from mlkd.deploy.exported import exported, measure
    from mlkd.metrics.evaluation import Evaluation, open_encoder_folder
    from mlkd.metrics.scoring import select_value
    from mlkd.metrics.sets import load_sets
    from mlkd.metrics.table import row_of, rows_to_table
    from mlkd.storage.files import write_json

    folder = Path(config.model).expanduser()
    if (folder / "run.json").is_file():
        folder = folder / "student"
    if not folder.exists() and "@" in config.model:
        name, revision = config.model.rsplit("@", 1)
        hub = EncoderConfig(name=name, revision=revision)
        folder = open_encoder_folder(hub, config.allow_download)
    graph = exported(folder)
    if graph is not None:
        _check_graph(config)
    elif not (folder / "modules.json").is_file():
        raise UserError(
            f"model={config.model}: give a student folder, the folder of a finished run, a "
            "sentence-transformers or an exported folder, an exported .onnx file, or a hub name as "
            "name@revision"
        )
    sets = load_sets(config.eval)
    training = _training_of(folder)
    if training and (names := _not_kept_out(sets, training)):
        print(
            f"warning: {', '.join(names)}: not kept out of the training pairs of this run; "
            "whatever of it was among them makes its scores too good",
            file=sys.stderr,
        )
    teacher = open_encoder_folder(_teacher(config, training), config.allow_download)
    racers = _racers(config, folder, teacher) if config.latency else {}
    evaluation = Evaluation(
        sets,
        bootstrap=config.eval.bootstrap,
        max_tokens=config.max_tokens or (training["data"]["max_tokens"] if training else _LONGEST),
        teacher=teacher,
        accelerator=config.accelerator,
        precision=config.eval.precision,
    )
    if graph is not None:
        measured = measure(evaluation, graph)
    else:
        speed = evaluation.speed({"model": evaluation.encoder(folder)})["model"]
        measured = evaluation.measure(folder) | speed
    output = Path(config.output) if config.output else Path("outputs", "evaluation.json")
    write_json(output, measured)
    Console(width=120).print(rows_to_table([row_of(folder.name, measured)]))
    if config.latency:
        race = _race(racers, [text for s in sets for text in s.left])
        write_json(output, measured | {"race": race})
    print(f"scores: {output}")
    dev = any(item.split == "dev" for item in sets)
    return select_value(measured["scores"]) if dev else None


def _check_graph(config: EvaluateConfig) -> None:
    """Refuse what an exported graph does not follow, or where it cannot run."""
    if config.max_tokens is not None:
        raise UserError(f"max_tokens={config.max_tokens}: an exported folder cuts at its own")
    if config.eval.precision != "fp32":
        raise UserError(f"eval.precision={config.eval.precision}: a graph runs in its own")
    if missing := [p for p in ("onnx", "onnxruntime") if importlib.util.find_spec(p) is None]:
        raise UserError(
            f"model={config.model}: needs {missing[0]}; "
            "pip install -c constraints.txt -e '.[export]'"
        )


def _run_of(student: Path) -> Path | None:
    """The run whose hand-over a folder is."""
    run = student.absolute().parent
    return run if student.name == "student" and (run / "run.json").is_file() else None


def _training_of(student: Path) -> dict[str, Any]:
    """Configuration of the run whose hand-over a folder is; empty if it is none."""
    from mlkd.runs.record import read_record

    run = _run_of(student)
    return {} if run is None else dict(read_record(run)["config"])


def _teacher(config: EvaluateConfig, training: dict[str, Any]) -> EncoderConfig:
    """The teacher that was asked for, else that of the student's run, else the packaged one."""
    if config.teacher is not None:
        return config.teacher
    packaged = OmegaConf.load(CONF_DIR / "teacher" / "minilm.yaml")
    return EncoderConfig.model_validate(training.get("teacher", packaged))


def _not_kept_out(sets: Sequence[EvalSet], training: dict[str, Any]) -> list[str]:
    """Names of sets with sentences that the sets of the run's own command do not have."""
    from mlkd.data.cleaning import normal_form
    from mlkd.metrics.sets import load_sets, sentences

    own = EvalConfig.model_validate(training["eval"])
    try:
        kept_out = {normal_form(text) for text in sentences(load_sets(own))}
    except UserError:  # their files are gone
        kept_out = set()
    return sorted(
        {s.name for s in sets if any(normal_form(t) not in kept_out for t in sentences([s]))}
    )


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
        if is_onnx(folder) and importlib.util.find_spec("onnxruntime") is None:
            raise UserError(f"compare={given}: needs pip install -c constraints.txt -e '.[export]'")
        name = "/".join(folder.absolute().parts[-2:])
        if folders.setdefault(name, folder) != folder:
            raise UserError(f"compare={given}: another folder is called {name} as well; rename one")
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
