"""One link: reuse its run, resume it or run it, and say which, and why."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from mlkd.encoders.folder import load_folder, save_folder, without_prompts
from mlkd.machine import ranks
from mlkd.metrics.scoring import select_value, share_of
from mlkd.output.errors import Interrupted, UserError
from mlkd.recipes.chain import ByContent, Chain
from mlkd.recipes.identity import identity
from mlkd.recipes.recipe import DIFF, HEAD, STUDENT, Input, Link, Made, New
from mlkd.runs.record import Run, environment, now
from mlkd.storage.files import (
    encoder_fingerprint,
    remove_folder,
    remove_leftovers,
    replacing_folder,
)
from mlkd.storage.process import peak_memory_mib
from mlkd.storage.seals import hashes, sealed
from mlkd.training.fit import Training, fit

log = logging.getLogger(__name__)


def run_link(chain: Chain, link: Link, announce: Callable[[Run], None] | None = None) -> Run:
    """Reuse, resume or run one link, whose inputs are there."""
    run = Run(
        Path(chain.config.output_dir, "runs"),
        link.name,
        link.settings.stage,
        identity(chain.config, link, ByContent(chain)),
    )
    chain.runs[link.name] = run
    if announce is not None:
        announce(run)
    stop: str | None = None
    if not ranks.is_first():
        if ranks.from_first(None) != "reuse":
            _, stop = _fit(chain, link, run)
        ranks.from_first(None)  # until the outputs are there
        if stop is not None:
            raise Interrupted(stop)
        return run
    with chain.lock(run):
        remove_leftovers(run.folder)
        if chain.deadline is not None and time.monotonic() > chain.deadline:
            raise Interrupted("time limit")
        inputs = _inputs(chain, link)
        state, reason = run.state(inputs)
        if state == "damaged":
            raise UserError(f"{reason}; move the folder of the run away to run it again")
        if state == "superseded":
            log.warning("%s: not reused, %s; it is now %s", run.id, reason, run.supersede())
        if state == "reuse":
            run.clear()  # left behind if the process was killed right after the end
            ranks.from_first(state)
        else:
            stop = _train(chain, link, run, inputs)
            if stop is not None:
                ranks.from_first(None)
                raise Interrupted(stop)
        word = {"reuse": "reused", "resume": "resumed"}.get(state, "ran")
        log.info("%s: %s (%s), %s", link.name, word, reason, run.folder)
        _score(chain, link, run)
        ranks.from_first(None)
    return run


def _score(chain: Chain, link: Link, run: Run) -> None:
    """Measure what a link made and enter it in its record."""
    record = run.read()
    head = run.output(HEAD) if HEAD in record["outputs"] else None
    diff = run.output(DIFF) if DIFF in record["outputs"] else None
    metrics = chain.measure(link.name, run.student, head, diff)
    share = share_of(chain.measured["assistant"]["scores"], metrics["scores"])["share"]
    # The last link of an earlier chain keeps results that belong to its references.
    its_own = link.name == chain.config.stage or "references" not in record
    if record.get("metrics", {}).get("scores") == metrics["scores"]:
        run.add_settings(chain.keys[link.name])
        if link.name == chain.config.stage:  # the assistant may be another one than before
            run.write("finished", share=share)
    elif its_own:  # the settings known so far led to other numbers
        selected, keys = select_value(metrics["scores"]), [chain.keys[link.name]]
        run.write("finished", metrics=metrics, share=share, selected=selected, settings=keys)


def _inputs(chain: Chain, link: Link) -> dict[str, dict[str, Any]]:
    """What a link starts from, for its record: the run and a hash of the files, by role."""
    found: dict[str, dict[str, Any]] = {}

    def enter(role: str, source: Input) -> None:
        if isinstance(source, New):
            enter("source", source.source)
            return
        folder = chain.folder(source)
        run = chain.runs[source.link].id if isinstance(source, Made) else _run_beside(chain, folder)
        found[role] = {"run": run, "content": encoder_fingerprint(folder)}

    for role, source in link.inputs.items():
        enter(role, source)
    return found


def _run_beside(chain: Chain, folder: Path) -> str | None:
    """The run of this output folder whose student a folder is."""
    run, runs = folder.resolve().parent, Path(chain.config.output_dir, "runs").resolve()
    return run.name if folder.name == STUDENT and run.parent == runs else None


def _train(chain: Chain, link: Link, run: Run, inputs: dict[str, Any]) -> str | None:
    """Train one link, write its outputs and record; gives why to stop after it, if so."""
    for name in run.read().get("outputs", {STUDENT: None}):
        # Of this run, killed before its record said that it was finished.
        remove_folder(run.output(name))
    if not run.checkpoint.is_file():
        run.clear()
    run.write(
        "running",
        started=now(),
        environment=environment(),
        inputs=inputs,
        trains_student=link.trains_student,
        coverage=chain.coverage,
        config=chain.config.model_dump(mode="json"),
    )
    ranks.from_first("run")  # the others join the training
    try:
        writers, stop = _fit(chain, link, run)
        run.write("running", outputs={name: None for name in writers})
        for name, write in writers.items():
            with replacing_folder(run.output(name)) as part:
                write(part)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | Interrupted)
        with suppress(UserError):  # a full disk must not hide the error
            run.write("interrupted" if stopped else "failed", reason=repr(error)[:500])
        raise
    run.write(
        "finished",
        finished=now(),
        reason=None,
        outputs={
            name: {
                "content": encoder_fingerprint(run.output(name)),
                "files": hashes(run.output(name)),
            }
            for name in writers
        },
        peak_memory_mib=peak_memory_mib(),
    )
    run.clear()
    return stop


def _fit(
    chain: Chain, link: Link, run: Run
) -> tuple[dict[str, Callable[[Path], None]], str | None]:
    """Train the encoder of a link (see :func:`fit`); all processes of a run do it together.

    Returns:
        What writes each output into a folder; why to stop after the link, if so.
    """
    config, model = chain.config, _model(chain, link, run)
    training = Training(
        chain.reads(link),
        run,
        link.starts_random,
        config.logger,
        config.model_dump(mode="json"),
        chain.deadline,
    )
    stage, summary, stop = fit(training, model)
    if ranks.is_first():
        run.write("running", training=summary)
    return {STUDENT: lambda part: save_folder(model, part), **stage.outputs()}, stop


def _model(chain: Chain, link: Link, run: Run) -> SentenceTransformer:
    """The encoder that a link trains."""
    start = link.inputs["start"]
    if not isinstance(start, New):
        encoder = load_folder(chain.folder(start))
        return encoder if link.trains_student else without_prompts(encoder)
    # Kept until the run is finished: what is not trained is in no checkpoint, and a decomposition
    # on another processor may give other vectors.
    with ranks.first_ahead():
        made = sealed(run.start, lambda part: save_folder(chain.new_student(start), part))
    return load_folder(made)
