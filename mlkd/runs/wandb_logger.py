"""W&B as a second place for curves, which may fail without harm to the training."""

from __future__ import annotations

import logging
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger

from mlkd.files import reason_of
from mlkd.runs.record import Run
from mlkd.schema import LoggerConfig
from mlkd.secrets import redact, redacted

log = logging.getLogger(__name__)

_PATIENCE = 30.0
"""Seconds that training waits for the W&B server at its start and at its end."""


def open_wandb(run: Run, settings: LoggerConfig) -> WandbLogger:
    """A W&B run under the id of the run; offline if that is asked for or the server is away."""
    if settings.mode == "online":
        logger = _logger(run, settings, "online")
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
    return _logger(run, settings, "offline")


def close_wandb() -> None:
    """End the W&B run; what could not be sent stays in the run folder."""
    import wandb

    try:
        wandb.finish()
    except Exception as error:  # whatever happens there, the training is done
        log.warning(
            "W&B: %s; what was not sent is in the run folder", redact(reason_of(error))[:150]
        )


def _logger(run: Run, settings: LoggerConfig, mode: Literal["online", "offline"]) -> WandbLogger:
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
        job_type=run.stage,
        tags=redacted(settings.tags),
        offline=mode == "offline",
        save_dir=run.folder,
        config=redacted(run.identity),
        settings=private,
    )
