"""The Python door. The commands read their words, call these functions, and print.

What one of them refuses it says in a line, as :class:`UserError`. The process that calls is given
back as it was, after an exception and an interruption too: loggers, environment, signal handlers,
random numbers, threads, kernels.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlkd.output.errors import Interrupted, UserError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from mlkd.config.given import Pairs
    from mlkd.config.schema import TrainConfig

__all__ = [
    "Exported",
    "Result",
    "UserError",
    "configure",
    "evaluate",
    "export",
    "load",
    "train",
]


class Result(NamedTuple):
    """What :func:`train` made."""

    student: Path
    """A folder for :func:`load`."""
    scores: dict[str, Any]
    """Of the student (see :func:`mlkd.metrics.scoring.score`)."""
    runs: tuple[Path, ...]
    """The folders of the links, the last one's last."""


class Exported(NamedTuple):
    """What :func:`export` wrote."""

    folders: dict[str, Path]
    """The folder of each format that passed its checks."""
    reports: dict[str, dict[str, Any]]
    """By format and file of weights what was measured, or ``refused`` and why."""


def load(folder: Path | str, diff: Path | str | Sequence[Path | str] = ()) -> SentenceTransformer:
    """Open a student, or any sentence-transformers folder, on the CPU and in eval mode.

    Only safetensors weights and the module classes of sentence-transformers and mlkd are loaded,
    and nothing is looked up on a hub. This needs torch, transformers and sentence-transformers
    besides mlkd, no other of its packages.

    Args:
        folder: A student, the folder of a finished run, or an exported folder.
        diff: One or several sparse differences of it, which are added: exported folders, or runs
            that made one. :class:`mlkd.encoders.difference.Differences` exchanges and removes them.

    Raises:
        UserError: It is no sentence encoder, or names foreign module classes; a difference is
            damaged or of another base.
    """
    from mlkd.config.paths import encoder_at
    from mlkd.encoders.folder import load_folder

    model = load_folder(encoder_at(folder))
    if places := [diff] if isinstance(diff, Path | str) else diff:
        from mlkd.encoders.difference import Differences

        Differences(model).apply(*places)
    return model


def configure(*overrides: str, **settings: Any) -> TrainConfig:
    """The configuration of ``python -m mlkd.train``, validated.

    Args:
        overrides: As on the command line: ``configure("experiment=headline", "seed=1")``.
        settings: The same as values: ``configure(student={"layers": 2}, seed=1)``. A section is
            the name of an option of ``conf/``, or a mapping whose values go into the default one;
            a teacher is an option, a folder, or ``name@revision`` of the hub.

    Raises:
        UserError: There is no such option or key, a value is out of range, a combination
            impossible, or nothing would read a setting.
    """
    from mlkd.config.compose import configured
    from mlkd.config.given import sections
    from mlkd.config.schema import TrainConfig
    from mlkd.recipes.early import refuse_beside_budget, refuse_unread
    from mlkd.runs.record import flatten

    config = configured("train", TrainConfig, overrides, sections(settings))
    words = [*overrides, *flatten(settings)]
    refuse_unread(config, words)
    refuse_beside_budget(config, words)
    return config


def train(
    config: TrainConfig | None = None,
    *,
    pairs: Pairs | None = None,
    output: Path | str | None = None,
    **settings: Any,
) -> Result:
    """Train a student: run the chain of a recipe, or what of it is missing.

    Signals are those of the caller again afterwards. One that stops the training is handed on once
    everything is saved, so that Ctrl-C gives a KeyboardInterrupt; the same call goes on from there.

    Args:
        config: As :func:`configure` gives it; or None and the arguments below.
        pairs: By translation language a file of English sentences and their translations
            (``{"de": "pairs.en-de.tsv.gz"}``; TSV, CSV, JSONL, JSON, Parquet, TMX, XLIFF, gettext),
            or a mapping as in ``data.corpora``. None = the embedded demo corpus.
        output: Folder of runs and caches; None = ``outputs``.
        settings: As in :func:`configure`: ``teacher=…``, ``student={"layers": 3}``, ``eval=…``.
            Without ``eval`` it is scored on the demo's sets in the languages of ``pairs``.

    Raises:
        UserError: A setting is wrong, a file cannot be read, or the training went astray.
    """
    from mlkd.recipes.early import refuse_beside_budget
    from mlkd.recipes.recipe import links

    if config is None:
        config = _training(pairs, output, settings)
    elif pairs is not None or output is not None or settings:
        raise UserError("give a configuration or settings, not both")
    if config.trainer.max_hours is not None:
        raise UserError("trainer.max_hours: is for commands, not for calls; leave it out")
    if config.trainer.processes > 1:
        raise UserError("trainer.devices and trainer.nodes: 1 here; commands start processes")
    links(config)  # refused before torch and friends are imported
    refuse_beside_budget(config, ())

    from mlkd.machine.host import unchanged
    from mlkd.recipes.run import run_chain
    from mlkd.runs.record import Run

    runs: list[Run] = []
    try:
        with unchanged():
            if config.budget_mib is not None:
                from mlkd.recipes.front import run_front

                run_front(config, runs.append)
            else:
                run_chain(config, runs.append)
    except Interrupted as stop:
        number = getattr(signal, str(stop), None)
        if number is None or threading.current_thread() is not threading.main_thread():
            raise
        signal.raise_signal(number)
        raise  # the caller's handler did nothing about it
    last = runs[-1]
    scores: dict[str, Any] = last.read()["metrics"]["scores"]
    return Result(last.student, scores, tuple(run.folder for run in runs))


def _training(
    pairs: Pairs | None, output: Path | str | None, settings: dict[str, Any]
) -> TrainConfig:
    """The configuration of a call."""
    from mlkd.config.given import corpora, in_languages

    given = dict(settings)
    if output is not None:
        given["output_dir"] = os.fspath(output)
    if pairs is None:
        return configure(**given)
    data = given.pop("data", {})
    if not isinstance(data, Mapping) or "corpora" in data:
        raise UserError("data: an option or corpora of it and pairs exclude each other")
    given["data"] = {**data, "corpora": (known := corpora(pairs))}
    if "eval" not in given:
        given["eval"] = in_languages(configure("eval=demo").eval, known)
    return configure("data=base", **given)


def evaluate(
    model: Path | str, *overrides: str, output: Path | str | None = None, **settings: Any
) -> dict[str, Any]:
    """Score a sentence encoder and measure its size and its speed.

    Args:
        model: A student, the folder of a run, any sentence-transformers folder, or a hub name as
            ``name@revision``.
        overrides: As after ``python -m mlkd.evaluate``.
        output: JSON file to write as well; it must not hold another model's numbers.
        settings: The same as values, as in :func:`configure`; ``eval={"root": …, "sets": {…}}``.

    Returns:
        What the command writes (see :func:`mlkd.deploy.judge.judge`): scores ×100, parameters,
        MiB, sentences a second, milliseconds a sentence, and what they are of.

    Raises:
        UserError: There is no such model, teacher or set.
    """
    from mlkd.config.commands import EvaluateConfig
    from mlkd.config.compose import configured
    from mlkd.config.given import sections

    given = sections({"model": model, "output": output, **settings})
    config = configured("evaluate", EvaluateConfig, overrides, given)

    from mlkd.deploy.judge import judge
    from mlkd.machine.host import unchanged

    with unchanged():
        return judge(config, write=output is not None).content


def export(
    run: Path | str, *overrides: str, output: Path | str | None = None, **settings: Any
) -> Exported:
    """Write folders that run in a product, each measured where it lies.

    Args:
        run: The folder of a finished run, or a student.
        overrides: As after ``python -m mlkd.export``.
        output: Folder of the results; None = ``outputs/export/<name of the run>``.
        settings: The same as values: ``export(run, format=["portable"], max_loss=1.0)``.

    Returns:
        The folders that were kept, and what was measured or refused.

    Raises:
        UserError: There is no such student, the output holds something else, or a package is
            missing.
    """
    from mlkd.config.commands import ExportConfig
    from mlkd.config.compose import configured
    from mlkd.config.given import sections
    from mlkd.deploy.source import checked

    given = sections({"run": run, "output": output, **settings})
    config = configured("export", ExportConfig, overrides, given)
    source, target = checked(config)

    from mlkd.deploy import package
    from mlkd.machine.host import unchanged

    with unchanged():
        reports = package.export(config, source, target)
    places = {name: target / name for name in config.format}
    return Exported({name: at for name, at in places.items() if at.is_dir()}, reports)
