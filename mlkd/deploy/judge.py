"""All that ``python -m mlkd.evaluate`` finds out about one model, and of what that is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlkd.config.commands import EvaluateConfig
from mlkd.config.compose import compose_option
from mlkd.config.evaluation import EvalConfig
from mlkd.config.inputs import DataConfig, EncoderConfig
from mlkd.config.paths import OUTPUTS, encoder_at, user_path
from mlkd.data.cleaning import normal_form
from mlkd.deploy.exported import ExportedGraph, measure_graph, open_graph
from mlkd.deploy.model import graph_of, is_hub_name
from mlkd.deploy.race import race_of, racers
from mlkd.deploy.results import Evaluated
from mlkd.deploy.source import run_of, section_of
from mlkd.deploy.uses import beside, open_documents, remembered
from mlkd.encoders.head import load_head
from mlkd.machine.hardware import describe_hardware, device_of
from mlkd.metrics.evaluation import Evaluation, open_encoder_folder
from mlkd.metrics.sets import EvalSet, first_pairs, load_sets, set_sentences
from mlkd.metrics.shorter import Remembered, check_kinds, score_kinds
from mlkd.metrics.sides import score_sides
from mlkd.output.errors import UserError
from mlkd.output.secrets import redacted
from mlkd.runs.record import environment, now, read_record
from mlkd.storage.files import digest, encoder_fingerprint, file_sha256, write_json

_LONGEST = 64
"""How many tokens a model without a run reads at most."""
_CACHE = Path(OUTPUTS, "cache")
"""Gets folders of links to models that are read with another prompt than their own."""


def judge(config: EvaluateConfig, *, write: bool) -> Evaluated:
    """Score any sentence encoder, measure its size and its speed.

    Args:
        config: The model, and what it is judged on.
        write: Write a JSON file: ``config.output``, or one in ``outputs/`` whose name holds that of
            the model and a hash of model, teacher and sets.

    Returns:
        The numbers (see :meth:`Evaluation.measure` and :meth:`Evaluation.speed`), ``race`` with
        ``latency``, ``vectors`` with ``vectors`` (by encoder, see
        :func:`mlkd.metrics.shorter.score_kinds`), ``documents`` with ``documents`` (see
        :func:`mlkd.metrics.sides.score_sides`), ``not_kept_out`` (sets that its training may have
        seen), ``not_scored`` (sets that need another head), and what they are of: ``model``,
        ``teacher``, ``eval``, ``max_tokens``, ``environment``, ``hardware``, ``finished``.

    Raises:
        UserError: There is no such model, teacher or set, or the file holds something else.
    """
    folder = _folder(config)
    graph = graph_of(config, folder)
    sets = first_pairs(load_sets(config.eval), config.eval.max_pairs)
    record = _record_of(folder)
    teacher = open_encoder_folder(_teacher(config, record), config.allow_download, _CACHE)
    read = folder if graph is not None else _with_prompt(config, folder)
    raced = racers(config, folder, teacher) if config.latency else {}
    evaluation = Evaluation(
        sets,
        bootstrap=config.eval.bootstrap,
        max_tokens=config.max_tokens or _max_tokens(config, record),
        teacher=teacher,
        accelerator=config.accelerator,
        precision=config.eval.precision,
    )
    run, given = run_of(folder), user_path(config.model)
    # A model of the hub lies in a folder that is called by its revision.
    name = run.name if run else (given.absolute() if given.exists() else given).name.split("@")[0]
    model = {"asked": config.model} | _who(read, graph)
    about = {
        "model": model,
        "teacher": _who(teacher),
        "eval": redacted(config.eval.model_dump(mode="json")),
        "max_tokens": evaluation.max_tokens,
    }
    if (head := _head(config, run)) is not None:
        _check_domains(config, head, record)
        about["head"] = {"folder": str(head.absolute()), "fingerprint": encoder_fingerprint(head)}
    file = _file(config, name, model, digest([about, [s.content for s in sets]], 8))
    student = Remembered(open_graph(graph)) if graph else remembered(evaluation, read)
    uses = config.vectors or config.documents
    encoders = beside(evaluation, folder, student) if uses else {}
    if config.vectors:
        widths = {name: e(["one sentence"]).shape[1] for name, e in encoders.items()}
        check_kinds(config.vectors, widths)
    documents = open_documents(config.documents, evaluation, folder, encoders)
    if graph is not None:
        content = measure_graph(evaluation, graph, student, head)
    else:
        speed = evaluation.speed({"model": evaluation.encoder(read)})["model"]
        known = student if uses else None  # else its model would be loaded a second time
        content = evaluation.measure(read, head, known) | speed
    content["not_scored"] = sorted({s.name for s in sets} - content["scores"]["sets"].keys())
    if config.latency:
        content["race"] = race_of(raced, [text for s in sets for text in s.left])
    if config.vectors:
        found = {name: score_kinds(e, sets, config.vectors) for name, e in encoders.items()}
        content["vectors"] = found
    if documents:
        content["documents"] = {
            name: _who(other.folder)
            | score_sides(student, other.encode, sets, only_source=other.only_source)
            for name, other in documents.items()
        }
    content["not_kept_out"] = _not_kept_out(config, sets, record) if record else []
    content |= about | {
        "environment": environment(),
        "hardware": describe_hardware(device_of(config.accelerator)),
        "finished": now(),
    }
    if write:
        write_json(file, content)
    return Evaluated(name, content["scores"], content, file if write else None)


def _folder(config: EvaluateConfig) -> Path:
    """The folder that ``model`` means."""
    folder = encoder_at(config.model)
    if is_hub_name(config.model):
        name, revision = config.model.rsplit("@", 1)
        hub = EncoderConfig(name=name, revision=revision)
        folder = open_encoder_folder(hub, config.allow_download, _CACHE)
    return folder


def _with_prompt(config: EvaluateConfig, folder: Path) -> Path:
    """The folder, with another prompt where one is asked for."""
    own = EncoderConfig(path=str(folder), prompt=config.prompt, prompt_name=config.prompt_name)
    return open_encoder_folder(own, config.allow_download, _CACHE)


def _who(folder: Path, graph: ExportedGraph | None = None) -> dict[str, str]:
    """Which encoder it was: where it lies, and a hash of all that decides its vectors."""
    if graph is None:
        found = encoder_fingerprint(folder)
        return {"folder": str(folder.absolute()), "fingerprint": found}
    place = graph.folder.absolute()
    key = digest([encoder_fingerprint(place), file_sha256(place / graph.file)], 32)
    return {"folder": str(place), "file": graph.file, "fingerprint": key}


def _file(config: EvaluateConfig, name: str, model: dict[str, str], key: str) -> Path:
    """The JSON file to write, which must not hold another model's numbers."""
    if config.output is None:
        return Path(OUTPUTS, f"evaluation-{name}-{key}.json")
    file = Path(config.output)
    if not file.exists():
        return file
    try:
        owner = json.loads(file.read_text(encoding="utf-8"))["model"]
        if owner["fingerprint"] == model["fingerprint"]:
            return file
        holds = f"the evaluation of {owner['folder']}"
    except (OSError, ValueError, KeyError, TypeError):
        holds = "something else"
    raise UserError(f"output={file}: it holds {holds}; give another file, or remove it")


def _head(config: EvaluateConfig, run: Path | None) -> Path | None:
    """Folder of the head: the one that is given, or that of the run."""
    if config.head is not None:
        return Path(config.head)
    has_one = run is not None and "head" in read_record(run).get("outputs", {})
    return run / "head" if run is not None and has_one else None


def _check_domains(config: EvaluateConfig, folder: Path, record: dict[str, Any]) -> None:
    """Refuse a domain of a set that neither the head nor the labelled text of its run has."""
    known = [*load_head(folder).domains]
    if not known:
        return
    with suppress(UserError):  # of another version
        data = section_of(record, "data", DataConfig, f"model={config.model}")
        known += [text.label for text in data.labelled.values()] if data else []
    for name, item in config.eval.sets.items():
        if item.domain is not None and item.domain not in known:
            raise UserError(
                f"eval.sets.{name}.domain={item.domain}: the head knows no such domain; allowed: "
                f"{', '.join(dict.fromkeys(known))}, or null"
            )


def _record_of(student: Path) -> dict[str, Any]:
    """The record of the run whose hand-over a folder is; empty if it is none."""
    run = run_of(student)
    return {} if run is None else read_record(run)


def _teacher(config: EvaluateConfig, record: dict[str, Any]) -> EncoderConfig:
    """The teacher that was asked for, else that of the student's run, else the packaged one."""
    if config.teacher is not None:
        return config.teacher
    own = section_of(record, "teacher", EncoderConfig, f"model={config.model}")
    return own or EncoderConfig.model_validate(compose_option("teacher", "minilm"))


def _max_tokens(config: EvaluateConfig, record: dict[str, Any]) -> int:
    """How many tokens the model read in its run."""
    if not record:
        return _LONGEST
    try:
        return int(record["config"]["data"]["max_tokens"])
    except (LookupError, TypeError, ValueError):
        raise UserError(
            f"model={config.model}: its run.json, of another version, does not say how many tokens "
            "it reads; give max_tokens=<number>"
        ) from None


def _not_kept_out(
    config: EvaluateConfig, sets: Sequence[EvalSet], record: dict[str, Any]
) -> list[str]:
    """Names of sets with sentences that the sets of the run's own command do not have."""
    kept_out: set[str] = set()
    with suppress(UserError):  # they are of another version, or their files are gone
        own = section_of(record, "eval", EvalConfig, f"model={config.model}")
        kept_out = {normal_form(text) for text in set_sentences(load_sets(own))} if own else set()
    return sorted(
        {s.name for s in sets if any(normal_form(t) not in kept_out for t in set_sentences([s]))}
    )
