"""Which runs a stage needs, which of them exist; runs the rest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from sentence_transformers import SentenceTransformer

from mlkd.config.schema import StageName, TrainConfig
from mlkd.data.pairs import PairStore
from mlkd.encoders.folder import load_folder, save_folder, without_prompts
from mlkd.machine import ranks
from mlkd.metrics.evaluation import Evaluation
from mlkd.metrics.scoring import select_value, share_of
from mlkd.metrics.table import rows_of, rows_to_table, to_markdown
from mlkd.output.errors import Interrupted, UserError
from mlkd.recipes.inputs import prepare
from mlkd.recipes.links import link_keys, links
from mlkd.runs.record import Run, environment, now, peak_memory_mib
from mlkd.stages import STAGES
from mlkd.storage.files import (
    encoder_fingerprint,
    remove_folder,
    replacing,
    replacing_folder,
    sweep,
)
from mlkd.storage.lock import Lock
from mlkd.storage.seals import hashes, sealed
from mlkd.student.start import new_student
from mlkd.training.fit import Job, fit
from mlkd.training.wandb_logger import summarise, wandb_run

log = logging.getLogger(__name__)

Announce = Callable[[str], None]

_STARTED = time.monotonic()
"""When the process began, nearly: ``trainer.max_hours`` is for all chains that it runs."""


@dataclass
class Chain:
    """What the links of one chain share."""

    config: TrainConfig
    pairs: PairStore
    evaluation: Evaluation
    teacher: Path
    base: Path
    """The assistant before stage 1."""
    assistant: Path
    """The assistant after stage 1, once that has run; until then ``base``."""
    keys: dict[StageName | None, str]
    """What leads to each link (see :func:`link_keys`), as it was before a file was read."""
    coverage: dict[str, Any]
    """What the assistant's vocabulary makes of each language."""
    deadline: float | None = None
    """``time.monotonic()`` at which the process saves and stops."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Each model of the result table,"""
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    """and its numbers."""

    @property
    def cache(self) -> Path:
        """Folder of recomputable files."""
        return Path(self.config.output_dir, "cache")

    def upstream(self, name: StageName, start: Run | None) -> str | None:
        """Fingerprint of the student that a link goes on training; None if it makes its own."""
        if start is None or start.stage == "assistant" or STAGES[name].starts_from == "assistant":
            return None
        return str(start.read()["student"])

    def lock(self, run: Run) -> Lock:
        """For whoever works on a run or writes its record."""
        return Lock(run.folder.with_name(f".{run.id}.lock"), waiting_for=run.id)

    def new_student(self) -> SentenceTransformer:
        """The student as the configuration has it start."""
        source = self.base if self.config.init.source == "base" else self.assistant
        return new_student(self.config, source, self.pairs, self.cache)

    def measure(self, name: str, folder: Path) -> dict[str, Any]:
        """Numbers of an encoder, from the cache where they are known; the first process's work."""
        if not ranks.is_first():
            return {}
        self.folders[name] = folder
        self.measured[name] = self.evaluation.cached(folder, self.cache, name)
        return self.measured[name]

    def measure_references(self) -> None:
        """Measure what students are compared with, as far as it is there before the first link."""
        self.measure("teacher", self.teacher)
        if "assistant" not in links(self.config):
            self.measure("assistant", self.assistant)


def run_chain(config: TrainConfig, announce: Announce | None = None) -> float:
    """Run what ``config.stage`` needs and print the table of results.

    Args:
        config: The chain.
        announce: Told the id of each link's run before it starts.

    Returns:
        The selecting dev score of the last link.
    """
    names = links(config)
    with ranks.joined(config.trainer):
        chain = open_chain(config)
        chain.measure_references()
        run_links(chain, names, announce)
        first = ranks.is_first()
        score = select_value(chain.measured[config.stage]["scores"]) if first else None
        return float(ranks.from_first(score))


def _report(chain: Chain, run: Run) -> None:
    """Time the models, print the table and write it into the folder of the last run."""
    config, measured = chain.config, chain.measured
    # In turns, in one race: times of other days and machines do not compare. All students of a
    # chain have one shape, so that the last one is enough.
    timed = {name: chain.folders[name] for name in ("teacher", "assistant", config.stage)}
    for name, values in chain.evaluation.cached_speed(timed, chain.cache).items():
        measured[name] = measured[name] | values
    with chain.lock(run):
        references = {name: measured[name] for name in ("teacher", "assistant")}
        run.write("finished", metrics=measured[config.stage], references=references)
    rows = rows_of(measured)
    Console(width=120).print(rows_to_table(rows))
    with replacing(run.folder / "table.md") as part:
        part.write_text(to_markdown(rows), encoding="utf-8")
    log.info("table: %s", run.folder / "table.md")
    log.info("student: %s", run.student)


def run_links(chain: Chain, names: list[StageName], announce: Announce | None = None) -> None:
    """Run the first links of a chain; the last link of all reports."""
    config, first = chain.config, ranks.is_first()
    run: Run | None = None
    for name in names:
        with wandb_run(config.logger) if first else nullcontext():
            run = run_link(chain, name, run, announce)
            if first and name == config.stage:
                _report(chain, run)
            if first and config.logger.kind == "wandb":
                summarise(run, artifact=config.logger.artifact)
        if name == "assistant":
            chain.assistant = run.student


def open_chain(config: TrainConfig) -> Chain:
    """Prepare data and the assistant before stage 1."""
    limit = config.trainer.max_hours
    deadline = None if limit is None else _STARTED + 3600 * limit
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    keys = link_keys(config)
    ready = prepare(config)
    evaluation = Evaluation(
        ready.sets,
        bootstrap=config.eval.bootstrap,
        max_tokens=config.data.max_tokens,
        teacher=ready.teacher,
        accelerator=config.trainer.accelerator,
        precision=config.eval.precision,
    )
    folders = ready.teacher, ready.base, ready.base
    return Chain(config, ready.pairs, evaluation, *folders, keys, ready.coverage, deadline)


def run_link(
    chain: Chain, name: StageName, start: Run | None, announce: Announce | None = None
) -> Run:
    """Reuse, resume or run one link and say which, and why."""
    run = Run(Path(chain.config.output_dir, "runs"), name, identity(chain, name, start))
    if announce is not None:
        announce(run.id)
    upstream = chain.upstream(name, start)
    stop: str | None = None
    if not ranks.is_first():
        if ranks.from_first(None) != "reuse":
            _, _, stop = _fit(chain, run, name, start)
        ranks.from_first(None)  # until the student is there
        if stop is not None:
            raise Interrupted(stop)
        return run
    with chain.lock(run):
        sweep(run.folder)
        if chain.deadline is not None and time.monotonic() > chain.deadline:
            raise Interrupted("time limit")
        state, reason = run.state(upstream)
        if state == "damaged":
            raise UserError(f"{reason}; move the folder of the run away to run it again")
        if state == "superseded":
            log.warning("%s: not reused, %s; it is now %s", run.id, reason, run.supersede())
        if state == "reuse":
            run.clear()  # left behind if the process was killed right after the end
            ranks.from_first(state)
        else:
            stop = _train(chain, run, name, start, upstream)
            if stop is not None:
                ranks.from_first(None)
                raise Interrupted(stop)
        word = {"reuse": "reused", "resume": "resumed"}.get(state, "ran")
        log.info("%s: %s (%s), %s", name, word, reason, run.folder)
        metrics = chain.measure(name, run.student)
        share = share_of(chain.measured["assistant"]["scores"], metrics["scores"])["share"]
        record = run.read()
        # The last link of an earlier chain keeps results that belong to its references.
        its_own = name == chain.config.stage or "references" not in record
        if record.get("metrics", {}).get("scores") == metrics["scores"]:
            run.add_settings(chain.keys[name])
        elif its_own:  # the settings known so far led to other numbers
            selected, keys = select_value(metrics["scores"]), [chain.keys[name]]
            run.write("finished", metrics=metrics, share=share, selected=selected, settings=keys)
        ranks.from_first(None)
    return run


def identity(chain: Chain, name: StageName, start: Run | None) -> dict[str, Any]:
    """Everything that decides the result of a link, and nothing else."""
    config, stage = chain.config, STAGES[name]
    target = chain.teacher if stage.target_encoder == "teacher" else chain.assistant
    result: dict[str, Any] = {
        "format": 1,
        "stage": config.stages[name].model_dump(exclude={"enabled", "fraction"}),
        "target": encoder_fingerprint(target),
        "data": chain.pairs.fingerprint,
        "batches": config.data.model_dump(
            include={"mixing", "temperature", "max_tokens", "max_dev_pairs"}
        ),
        "optim": config.optim.model_dump(),
        "precision": config.trainer.precision,
        "validations": config.trainer.validations,
        "seed": config.seed_of(name),
    }
    if config.stages[name].fraction < 1.0:
        result["fraction"] = config.stages[name].fraction
    if start is not None and start.stage != "assistant":
        return result | {"start": start.id}
    result["assistant"] = encoder_fingerprint(chain.assistant)
    if stage.starts_from == "student":
        result |= {
            "student": config.student.model_dump(exclude_defaults=True),
            "init": config.init.deciding(),
        }
        result["base"] = encoder_fingerprint(chain.base)
    return result


def _train(
    chain: Chain, run: Run, name: StageName, start: Run | None, upstream: str | None
) -> str | None:
    """Train one link, write its hand-over folder and record; gives why to stop after it, if so."""
    config = chain.config
    if run.student.exists():  # of this run, killed before its record said that it was finished
        remove_folder(run.student)
    if not run.checkpoint.is_file():
        run.clear()
    run.write(
        "running",
        started=now(),
        environment=environment(),
        upstream=upstream,
        coverage=chain.coverage,
        config=config.model_dump(mode="json"),
    )
    ranks.from_first("run")  # the others join the training
    try:
        model, summary, stop = _fit(chain, run, name, start)
        with replacing_folder(run.student) as part:
            save_folder(model, part)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | Interrupted)
        with suppress(UserError):  # a full disk must not hide the error
            run.write("interrupted" if stopped else "failed", reason=repr(error)[:500])
        raise
    run.write(
        "finished",
        finished=now(),
        reason=None,
        student=encoder_fingerprint(run.student),
        files=hashes(run.student),
        training=summary,
        peak_memory_mib=peak_memory_mib(),
    )
    run.clear()
    return stop


def _fit(
    chain: Chain, run: Run, name: StageName, start: Run | None
) -> tuple[SentenceTransformer, dict[str, Any], str | None]:
    """Train the model of a link (see :func:`fit`); all processes of a run do it together."""
    model = _model(chain, run, name, start)
    stores = chain.pairs, chain.cache, chain.teacher, chain.assistant
    return model, *fit(Job(chain.config, *stores, run, name, chain.deadline), model)


def _model(chain: Chain, run: Run, name: StageName, start: Run | None) -> SentenceTransformer:
    """What the link trains: the assistant, a new student, or the student of the link before."""
    if STAGES[name].starts_from == "assistant":
        return without_prompts(load_folder(chain.assistant))
    if start is not None and start.stage != "assistant":
        return load_folder(start.student)
    # Kept until the run is finished: what is not trained is in no checkpoint, and a decomposition
    # on another processor may give other vectors.
    with ranks.first_ahead():
        made = sealed(run.start, lambda part: save_folder(chain.new_student(), part))
    return load_folder(made)
