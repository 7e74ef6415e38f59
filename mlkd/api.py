"""The Python door. The commands read their words, call these functions, and print.

What one of them refuses it says in a line, as :class:`UserError`. The process that calls is given
back as it was, after an exception and an interruption too: loggers, environment, signal handlers,
random numbers, threads, kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlkd.deploy.results import Evaluated as Evaluated
from mlkd.deploy.results import Exported as Exported
from mlkd.output.caller import keeping_random
from mlkd.output.errors import UserError as UserError
from mlkd.recipes.result import Result as Result
from mlkd.recipes.result import Show

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from mlkd.config.commands import EvaluateConfig, ExportConfig, MineConfig, PairsConfig
    from mlkd.config.given import Pairs
    from mlkd.config.schema import TrainConfig
    from mlkd.data.look import Look
    from mlkd.deploy.mining import Mined


@keeping_random
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


@keeping_random
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
    from mlkd.recipes.early import refuse_unread
    from mlkd.runs.record import flatten

    config = configured("train", TrainConfig, overrides, sections(settings))
    refuse_unread(config, [*overrides, *flatten(settings)])
    return config


@keeping_random
def train(
    config: TrainConfig | None = None,
    *,
    pairs: Pairs | None = None,
    output: Path | str | None = None,
    show: Show | None = None,
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
        show: Told the lines of the table of results, as
            :func:`mlkd.metrics.table.print_table`; for each student of ``budget_mib``.
        settings: As in :func:`configure`: ``teacher=…``, ``student={"layers": 3}``, ``eval=…``.
            Without ``eval`` it is scored on the demo's sets in the languages of ``pairs``.

    Raises:
        UserError: A setting is wrong, a file cannot be read, or the training went astray.
        Interrupted: ``trainer.max_hours`` after the process first trained are over; everything is
            saved.
    """
    from mlkd.config.given import NOT_BOTH
    from mlkd.config.schema import TrainConfig
    from mlkd.output.started import started_processes
    from mlkd.recipes.again import made_before
    from mlkd.recipes.early import check_early

    if config is None:
        config = _training(pairs, output, settings)
    elif pairs is not None or output is not None or settings:
        raise UserError(NOT_BOTH)
    elif not isinstance(config, TrainConfig):
        raise UserError(
            f"train: {config!r}: give what mlkd.configure(...) makes of it, or settings"
        )
    if config.trainer.processes != started_processes():
        raise UserError(
            f"trainer.devices and trainer.nodes: {started_processes()} process here; the command, "
            "torchrun and srun start several"
        )
    check_early(config)  # before torch and friends are imported
    if config.budget_mib is None and (known := made_before(config, show)) is not None:
        return known

    from mlkd.machine.host import signals_handed_on, unchanged
    from mlkd.recipes.front import run_front
    from mlkd.recipes.run import run_chain

    run = run_chain if config.budget_mib is None else run_front
    with signals_handed_on(), unchanged():
        return run(config, show=show)


@keeping_random
def evaluate(
    model: Path | str | EvaluateConfig,
    *overrides: str,
    output: Path | str | None = None,
    **settings: Any,
) -> Evaluated:
    """Score a sentence encoder and measure its size and its speed.

    Args:
        model: A student, the folder of a run, any sentence-transformers folder, or a hub name as
            ``name@revision``; or the whole configuration, whose numbers are always written.
        overrides: As after ``python -m mlkd.evaluate``.
        output: JSON file to write as well; it must not hold another model's numbers.
        settings: The same as values, as in :func:`configure`; ``eval={"root": …, "sets": {…}}``.

    Raises:
        UserError: There is no such model, teacher or set.
    """
    from mlkd.config.commands import EvaluateConfig
    from mlkd.config.given import chosen
    from mlkd.deploy.model import check_model

    given = {"model": model, "output": output, **settings}
    config = chosen("evaluate", EvaluateConfig, model, overrides, given)
    check_model(config)

    from mlkd.deploy.judge import judge
    from mlkd.machine.host import unchanged

    with unchanged():
        return judge(config, write=config is model or output is not None)


@keeping_random
def export(
    run: Path | str | ExportConfig,
    *overrides: str,
    output: Path | str | None = None,
    **settings: Any,
) -> Exported:
    """Write folders that run in a product, each measured where it lies.

    Args:
        run: The folder of a finished run, or a student; or the whole configuration.
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
    from mlkd.config.given import chosen
    from mlkd.deploy.source import checked_source

    given = {"run": run, "output": output, **settings}
    config = chosen("export", ExportConfig, run, overrides, given)
    source, target = checked_source(config)

    from mlkd.deploy import package
    from mlkd.machine.host import unchanged

    with unchanged():
        return package.write_formats(config, source, target)


@keeping_random
def pairs(
    pairs: Pairs | PairsConfig | None = None,
    *overrides: str,
    output: Path | str | None = None,
    **settings: Any,
) -> Look:
    """Look at pairs before hours of training: read and clean them as a training would.

    Args:
        pairs: As in :func:`train`; or the whole configuration.
        overrides: As after ``python -m mlkd.pairs``.
        output: TSV file for all cleaned pairs, packed if it ends in ``.gz``.
        settings: The same as values: ``pairs(data={"root": folder, "corpora": {…}}, show=5)``.

    Returns:
        What became of each corpus, a sample, and what looks wrong.

    Raises:
        UserError: A corpus cannot be read.
    """
    from mlkd.config.commands import PairsConfig
    from mlkd.config.given import chosen, with_pairs
    from mlkd.data.look import look_at
    from mlkd.metrics.sets import load_sets, set_sentences

    given = {"output": output, **settings}
    if pairs is not None and not isinstance(pairs, PairsConfig):
        given, overrides = with_pairs(pairs, given), ("data=base", *overrides)
    config = chosen("pairs", PairsConfig, pairs, overrides, given)
    return look_at(
        config.data,
        Path(config.output_dir, "cache"),
        exclude=set_sentences(load_sets(config.eval)) if config.eval else (),
        show=config.show,
        output=Path(config.output) if config.output else None,
        allow_download=config.allow_download,
    )


@keeping_random
def mine(
    texts: Sequence[Path | str] | MineConfig,
    *overrides: str,
    output: Path | str | None = None,
    **settings: Any,
) -> Mined:
    """Write the best translation of each line of a text among the lines of another.

    Args:
        texts: The two files; or the whole configuration.
        overrides: As after ``python -m mlkd.mine``.
        output: TSV file of the pairs, packed if it ends in ``.gz``.
        settings: The same as values: ``mine(["a.txt", "b.txt"], model=folder, output="ab.tsv")``.

    Raises:
        UserError: A file or the encoder cannot be read, or the output cannot be written.
    """
    from mlkd.config.commands import MineConfig
    from mlkd.config.given import chosen

    given = {"texts": texts, **({} if output is None else {"output": output}), **settings}
    config = chosen("mine", MineConfig, texts, overrides, given)

    from mlkd.deploy import mining

    return mining.mine_pairs(config)


def _training(
    pairs: Pairs | None, output: Path | str | None, settings: dict[str, Any]
) -> TrainConfig:
    """The configuration of a call."""
    from mlkd.config.given import demo_in_languages, with_pairs

    given = settings if output is None else {**settings, "output_dir": output}
    if pairs is None:
        return configure(**given)
    given = with_pairs(pairs, given)
    if "eval" not in given:
        demo = configure("eval=demo").eval
        given["eval"] = demo_in_languages(demo, given["data"]["corpora"])
    return configure("data=base", **given)
