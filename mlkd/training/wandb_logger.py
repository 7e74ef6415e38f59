"""W&B as a second place for curves, which may fail without harm to the training."""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger

from mlkd.config.training import LoggerConfig
from mlkd.metrics.summary import numbers, pair_scores
from mlkd.output.secrets import redact, redacted
from mlkd.runs.record import DOMAIN_WEIGHTS, Run, flatten
from mlkd.storage.files import reason_of

log = logging.getLogger(__name__)

_PATIENCE = 30.0
"""Seconds that training waits for the W&B server at its start and at its end."""


def open_wandb(run: Run, settings: LoggerConfig, config: dict[str, Any]) -> WandbLogger:
    """A W&B run under the id of the run; offline if that is asked for or the server is away.

    Args:
        run: Gives id, type and folder.
        settings: Project, group, tags and mode.
        config: The resolved configuration; W&B gets its leaves, as ``student/bottleneck``.
    """
    leaves = {k.replace(".", "/"): v for k, v in flatten(config).items() if v != {}}
    if settings.mode == "online" or (settings.mode == "auto" and may_send()):
        logger = _logger(run, settings, "online", leaves)
        try:
            logger.experiment.id  # noqa: B018 - connects
            return logger
        except Exception as error:  # wandb's own, requests' and timeouts
            log.warning(
                "W&B cannot be reached (%s); curves are written offline, send them later with "
                "wandb sync %s",
                redact(reason_of(error))[:150],
                run.folder / "wandb" / "offline-run-*",
            )
            import wandb

            wandb.teardown()  # its service would hold the id of the run
    return _logger(run, settings, "offline", leaves)


def may_send() -> bool:
    """Whether the environment lets W&B send anything, and there is a key for it."""
    return os.environ.get("WANDB_MODE", "online") == "online" and has_key()


def has_key() -> bool:
    """Whether a key for the W&B server is set, in the environment or by ``wandb login``."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def summarise(run: Run, *, artifact: bool) -> None:
    """Enter the results of a finished run in its W&B run, where one is open.

    Args:
        run: Its record has scores, size, speed and the share of the assistant's score.
        artifact: Whether W&B keeps the student folder.
    """
    import wandb

    if wandb.run is None:  # reused, or another process of a distributed run
        return
    record = run.read()
    metrics, share = record["metrics"], record["share"]
    try:
        results = {f"result/{name}": value for name, value in numbers(metrics, share).items()}
        pairs = {"/".join(("pair", *key)): value for key, value in pair_scores(metrics).items()}
        wandb.run.summary.update(results | pairs)
        log_ratios(run)
        if artifact:
            student = wandb.Artifact(run.id, type="model", metadata=results)
            student.add_dir(str(run.student))
            wandb.run.log_artifact(student)
    except Exception as error:  # whatever happens there, the results are in the run record
        reason = redact(reason_of(error))[:150]
        log.warning("W&B: %s; the results are in %s", reason, run.file)


def log_ratios(run: Run) -> None:
    """Enter the picture of the ratios of layers and domains, of a run that hands them over."""
    import wandb

    if wandb.run is None or not (run.folder / DOMAIN_WEIGHTS).is_dir():
        return
    try:
        from mlkd.training.ratios import pixels, ratios_of
    except ModuleNotFoundError:
        log.warning("W&B gets no picture of the ratios: it needs matplotlib (extra report)")
        return
    if (ratios := ratios_of(run.folder)) is not None:
        wandb.run.log({"ratios": wandb.Image(pixels(ratios))})


@contextmanager
def wandb_run(settings: LoggerConfig) -> Iterator[None]:
    """End the W&B run that is opened inside, once everything about it is known."""
    if settings.kind != "wandb":
        yield
        return
    try:
        yield
    except BaseException:
        close_wandb(failed=True)
        raise
    close_wandb(failed=False)


def close_wandb(*, failed: bool) -> None:
    """End the W&B run; what could not be sent stays in the run folder."""
    import wandb

    try:
        wandb.finish(exit_code=int(failed))
    except Exception as error:  # whatever happens there, the training is done
        log.warning(
            "W&B: %s; what was not sent is in the run folder", redact(reason_of(error))[:150]
        )


def _logger(
    run: Run, settings: LoggerConfig, mode: Literal["online", "offline"], config: dict[str, Any]
) -> WandbLogger:
    import wandb

    run.folder.mkdir(parents=True, exist_ok=True)
    # No copy of the console, the command line, the code or the git remote leaves the machine.
    limits: dict[str, Any] = {"init_timeout": _PATIENCE, "finish_timeout": _PATIENCE}
    private = wandb.Settings(
        mode=mode,
        console="off",
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        **limits,
    )
    return WandbLogger(
        project=settings.project,
        id=run.id,
        name=run.id,
        resume="allow",
        group=redacted(settings.group),
        job_type=run.link,
        tags=redacted(settings.tags),
        offline=mode == "offline",
        save_dir=run.folder,
        config=redacted(config),
        settings=private,
    )
