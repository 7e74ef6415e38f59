"""Training callbacks: progress, exact checkpoints, the best weights on dev."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import lightning as L
from safetensors.torch import load_model, save_model

from mlkd.errors import Interrupted
from mlkd.files import replacing
from mlkd.progress import progress


class ProgressBar(L.Callback):
    """Steps done, rate and remaining time of a stage."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def on_train_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Open the bar at the restored step."""
        self._bar = progress(
            f"stage {self._stage}",
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


class Checkpoint(L.Callback):
    """Saves the training state every few minutes and when the process is asked to stop.

    It saves before a step, when everything that belongs to the steps before is done, validation
    included.
    """

    def __init__(self, path: Path, minutes: float) -> None:
        self._path, self._seconds = path, 60 * minutes
        self._signal: str | None = None
        self._old: dict[int, Any] = {}

    def on_fit_start(self, *args: Any) -> None:
        """Catch Ctrl-C and SIGTERM from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._stop)
        self._saved = time.monotonic()

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Save if it is time, or save and stop."""
        if self._signal is None and time.monotonic() - self._saved < self._seconds:
            return
        with replacing(self._path) as temporary:
            trainer.save_checkpoint(temporary)
        self._saved = time.monotonic()
        if self._signal is not None:
            raise Interrupted(self._signal)

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Give the signals back."""
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: Any) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second Ctrl-C does not wait
        self._signal = signal.Signals(number).name


class KeepBest(L.Callback):
    """Keeps the weights with the lowest dev loss."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.best: dict[str, float] = {}
        self.curve: list[dict[str, float]] = []

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """Write the weights if they are better."""
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("dev/")}
        values["step"] = trainer.global_step
        self.curve.append(values)
        if not self.best or values["dev/loss"] < self.best["dev/loss"]:
            self.best = values
            with replacing(self._path) as temporary:
                save_model(module.model, str(temporary))

    def restore(self, model: Any) -> None:
        """Load the best weights into the model."""
        load_model(model, str(self._path))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"best": self.best, "curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what was known."""
        self.best, self.curve = state_dict["best"], state_dict["curve"]
