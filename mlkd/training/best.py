"""The best weights on dev."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model

from mlkd.machine import ranks
from mlkd.output.errors import UserError
from mlkd.storage.files import file_sha256, replacing


class KeepBest(L.Callback):
    """Keeps the weights with the best value on dev: those of all modules of the stage.

    Older ones stay until no checkpoint names them, so that every checkpoint has its own.
    """

    def __init__(self, place: Callable[[int], Path], selects: str, largest: bool) -> None:
        """Set up.

        Args:
            place: File of the weights of a step.
            selects: The logged value that decides,
            largest: and whether larger is better.
        """
        self._place, self._selects, self._sign = place, selects, -1.0 if largest else 1.0
        self._sha256 = ""
        self._written: list[int] = []
        self.best: dict[str, float] = {}
        self.curve: list[dict[str, float]] = []

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """Write the weights if they are better."""
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("dev/")}
        values["step"] = trainer.global_step
        self.curve.append(values)
        new, old = (self._sign * x.get(self._selects, math.inf) for x in (values, self.best))
        if ranks.from_first(not self.best or new < old):
            self.best = values
            path = self._place(trainer.global_step)
            if ranks.is_first():
                with replacing(path) as temporary:
                    save_model(module, str(temporary))
                self._sha256 = file_sha256(path)
            self._sha256 = ranks.from_first(self._sha256)
            self._written.append(trainer.global_step)

    def forget(self) -> None:
        """Remove what the checkpoint that was just written does not name."""
        if ranks.is_first():
            for step in self._written[:-1]:
                self._place(step).unlink(missing_ok=True)
        self._written = self._written[-1:]

    def restore(self, module: Any) -> None:
        """Load the best weights into the stage.

        Raises:
            UserError: They are not those that were written.
        """
        path = self._place(int(self.best["step"]))
        try:
            whole = file_sha256(path) == self._sha256
            if whole:
                load_model(module, str(path))
        except (OSError, SafetensorError):
            whole = False
        if not whole:
            raise UserError(f"{path}: missing or damaged; remove its folder to run the link again")

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"best": self.best, "curve": self.curve, "sha256": self._sha256}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what was known."""
        self.best, self.curve = state_dict["best"], state_dict["curve"]
        self._sha256 = state_dict["sha256"]
        self._written = [int(self.best["step"])] if self.best else []
