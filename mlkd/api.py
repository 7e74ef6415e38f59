"""The Python door. The commands read their words, call these functions, and print.

What one of them refuses it says in a line, as :class:`UserError`. The process that calls is given
back as it was, after an exception and an interruption too: loggers, environment, signal handlers,
random numbers, threads, kernels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlkd.output.errors import UserError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from mlkd.config.schema import TrainConfig

__all__ = ["Exported", "UserError", "configure", "evaluate", "export", "load"]


class Exported(NamedTuple):
    """What :func:`export` wrote."""

    folders: dict[str, Path]
    """The folder of each format that passed its checks."""
    reports: dict[str, dict[str, Any]]
    """By format and file of weights what was measured, or ``refused`` and why."""


def load(folder: Path | str) -> SentenceTransformer:
    """Open a student, or any sentence-transformers folder, on the CPU and in eval mode.

    Only safetensors weights and the module classes of sentence-transformers and mlkd are loaded,
    and nothing is looked up on a hub. This needs torch, transformers and sentence-transformers
    besides mlkd, no other of its packages.

    Args:
        folder: A student, the folder of a finished run, or an exported folder.

    Raises:
        UserError: It is no sentence encoder, or names foreign module classes.
    """
    from mlkd.encoders.folder import load_folder

    place = Path(folder).expanduser()
    return load_folder(place / "student" if (place / "run.json").is_file() else place)


def configure(*overrides: str, **settings: Any) -> TrainConfig:
    """The configuration of ``python -m mlkd.train``, validated.

    Args:
        overrides: As on the command line: ``configure("experiment=headline", "seed=1")``.
        settings: The same as values: ``configure(student={"layers": 2}, seed=1)``. A section is
            the name of an option of ``conf/``, or a mapping whose values go into the default one;
            a teacher is an option, a folder, or ``name@revision`` of the hub.

    Raises:
        UserError: There is no such option or key, a value is out of range, or a combination
            impossible.
    """
    from mlkd.config.compose import configured
    from mlkd.config.given import sections
    from mlkd.config.schema import TrainConfig

    return configured("train", TrainConfig, overrides, sections(settings))


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
    from mlkd.deploy.source import check_packages, open_source, target_folder

    given = sections({"run": run, "output": output, **settings})
    config = configured("export", ExportConfig, overrides, given)
    source = open_source(config.run)
    target = target_folder(config, source)
    check_packages(config.format)

    from mlkd.deploy import package
    from mlkd.machine.host import unchanged

    with unchanged():
        reports = package.export(config, source, target)
    places = {name: target / name for name in config.format}
    return Exported({name: at for name, at in places.items() if at.is_dir()}, reports)
