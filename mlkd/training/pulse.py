"""How fast a training goes: a bar in the terminal; for W&B also how much memory it takes."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from mlkd.data.module import PairBatch
from mlkd.machine import ranks
from mlkd.output.progress import progress
from mlkd.storage.process import peak_memory_mib


class ProgressBar(L.Callback):
    """Steps done, rate and remaining time of a link."""

    def __init__(self, link: str) -> None:
        self._link = link

    def on_train_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Open the bar at the restored step."""
        self._bar = progress(
            f"link {self._link}",
            total=trainer.max_steps,
            unit=" steps",
            initial=trainer.global_step,
        )

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Advance; the loss is shown now and then, since reading it waits for the device."""
        self._bar.update(trainer.global_step - self._bar.n)
        if trainer.global_step % 20 == 0 and "train/loss" in trainer.callback_metrics:
            loss = float(trainer.callback_metrics["train/loss"])
            self._bar.set_postfix_str(f"loss {loss:.5f}", refresh=False)

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Close the bar, also after an interruption."""
        if hasattr(self, "_bar"):
            self._bar.close()


class Pulse(L.Callback):
    """Logs pairs a second and memory to one logger.

    They differ from run to run, so they stay out of the run folder's curves, which an interrupted
    and an undisturbed run have alike.
    """

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._pairs = 0
        self._since = time.perf_counter()

    def on_train_start(self, *args: Any) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: PairBatch, batch_idx: int
    ) -> None:
        """Log where the trainer logs as well."""
        self._pairs += len(batch.source) * ranks.world_size()  # each process has an equal share
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        passed = time.perf_counter() - self._since
        values = {
            "speed/pairs_per_s": self._pairs / passed,
            "memory/process_mib": float(peak_memory_mib() or "nan"),
        }
        if module.device.type == "cuda":
            values["memory/gpu_mib"] = torch.cuda.max_memory_allocated(module.device) / 2**20
        self._logger.log_metrics(values, step=trainer.global_step - 1)
        self._since, self._pairs = time.perf_counter(), 0

    def on_validation_start(self, *args: Any) -> None:
        """Stop the clock."""
        self._stopped = time.perf_counter()

    def on_validation_end(self, *args: Any) -> None:
        """Go on: validation is no training time."""
        self._since += time.perf_counter() - self._stopped
