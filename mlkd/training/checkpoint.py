"""Exact checkpoints: saved now and then, and when the process is asked to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mlkd.machine import ranks
from mlkd.machine.cluster import TIMEOUT_SIGNAL
from mlkd.output.errors import Interrupted, UserError
from mlkd.storage.files import reason_of, replacing
from mlkd.training.best import KeepBest
from mlkd.training.curves import Curves

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, TIMEOUT_SIGNAL)
"""What asks a training to save and stop."""
_TIME_LIMIT = "time limit"
_REASONS = (None, _TIME_LIMIT, *(number.name for number in _SIGNALS))
"""Why a training stops; where its processes have different reasons the last of these counts."""


class Checkpoint(L.Callback):
    """Saves the training state now and then, and when the process is asked to stop.

    It saves before a step, when everything that belongs to the steps before is done, validation
    included. Where saving is slow it happens less often, so that it takes a small share of the
    time; what it took is counted.
    """

    def __init__(
        self,
        path: Path,
        run: str,
        precision: str,
        best: KeepBest,
        check: Callable[[], None],
        *,
        minutes: float,
        steps: int | None,
        share: float,
        deadline: float | None,
    ) -> None:
        """Set up.

        Args:
            path: The file.
            run: Id of the run, written into it, as is
            precision: what it is trained in.
            best: Told when a checkpoint is written.
            check: Called before one is written; raises if the state is not worth it.
            minutes: Save after so many minutes,
            steps: or whenever the step is a multiple of this.
            share: Saving may take at most this share of the time.
            deadline: ``time.monotonic()`` at which to save and stop.
        """
        self._path, self._best, self._check = path, best, check
        self._run, self._precision = run, precision
        self._seconds, self._steps, self._share = 60 * minutes, steps, share
        self._deadline = deadline
        self._stop: str | None = None
        self._old: dict[int, Any] = {}
        self._count, self._spent, self._trained, self._last = 0, 0.0, 0.0, 0.0
        self._step = -1
        self._said = False

    def on_fit_start(self, *args: Any) -> None:
        """Remember who handles signals."""
        self._old = {number: signal.getsignal(number) for number in _SIGNALS}
        self._started = self._saved = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Catch signals; forget what was logged after the checkpoint: these steps run again.

        Only now, because Lightning has set a handler of SIGTERM of its own in the meantime, which
        ends the training without a checkpoint.
        """
        if threading.current_thread() is threading.main_thread():  # no other may set them
            for number in _SIGNALS:
                signal.signal(number, self._on_signal)
        for logger in trainer.loggers:
            if isinstance(logger, Curves):
                logger.cut(trainer.global_step)
        self._step = trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Save if it is time, or save and stop."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._stop = self._stop or _TIME_LIMIT
        due = ranks.is_first() and self._is_due(trainer.global_step) and self._is_cheap()
        # All processes save or stop before the same step, whichever of them is asked to.
        what = ranks.largest(2 * _REASONS.index(self._stop) + due)
        self._stop = _REASONS[what // 2]
        if what:
            self._save(trainer)
        if self._stop is not None:
            raise Interrupted(self._stop)

    def _is_due(self, step: int) -> bool:
        if step == self._step:
            return False
        by_step = self._steps is not None and step % self._steps == 0
        return by_step or time.monotonic() - self._saved >= self._seconds

    def _is_cheap(self) -> bool:
        """Whether another save like the last one stays within the share."""
        elapsed = self._trained + time.monotonic() - self._started
        cheap = self._spent + self._last <= self._share * elapsed or self._count == 0
        if not cheap and not self._said:
            self._said = True
            log.info(
                "a checkpoint takes %.1f s; they come less often, so that they take less than "
                "%.0f %% of the time",
                self._last,
                100 * self._share,
            )
        return cheap

    def _save(self, trainer: L.Trainer) -> None:
        self._check()
        start = time.monotonic()
        for logger in trainer.loggers:
            if isinstance(logger, Curves):
                logger.write()
        if ranks.is_first():
            with replacing(self._path) as temporary:
                trainer.save_checkpoint(temporary)
        else:
            trainer.save_checkpoint(self._path)  # takes part; the first process writes
        self._best.forget()
        self._saved, self._step = time.monotonic(), trainer.global_step
        self._last = self._saved - start
        self._count, self._spent = self._count + 1, self._spent + self._last

    def on_save_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make Lightning's counters those of a finished batch.

        The next one has been counted, but not run; without this a resumed run would log and
        validate a step too early.
        """
        loop = checkpoint["loops"]["fit_loop"]
        for counts in loop["epoch_loop.batch_progress"].values():
            if isinstance(counts, dict):
                counts["ready"] = counts["completed"]
        done = loop["epoch_loop.batch_progress"]["total"]["completed"]
        if done % trainer.val_check_batch == 0:  # Lightning will end that batch a second time
            loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1

    def asked(self) -> str | None:
        """Why to stop after the training, which was asked for in its last step; None = go on."""
        self._stop = _REASONS[ranks.largest(_REASONS.index(self._stop))]
        return self._stop

    @property
    def earlier(self) -> float:
        """Seconds that the steps before the last start took, those of other processes too."""
        return self._trained

    def cost(self) -> dict[str, float]:
        """How often it saved, and the seconds and the share of training time that took."""
        elapsed = self._trained + time.monotonic() - self._started
        return {
            "saved": self._count,
            "seconds": round(self._spent, 2),
            "share": round(self._spent / elapsed, 4),
        }

    def state_dict(self) -> dict[str, Any]:
        """Whose checkpoint it is, and what saving has cost."""
        trained = self._trained + time.monotonic() - self._started
        costs = {"count": self._count, "spent": self._spent, "last": self._last}
        return {"run": self._run, "precision": self._precision, "trained": trained, **costs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._count, self._spent = state_dict["count"], state_dict["spent"]
        self._trained, self._last = state_dict["trained"], state_dict["last"]

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Give the signals back."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._old.items():
                signal.signal(number, handler)

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Give the signals back after an interruption, when there is no teardown."""
        self.teardown()

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._stop is not None and number == signal.SIGINT:
            # The second Ctrl-C does not wait; at a KeyboardInterrupt Lightning ends the process.
            raise Interrupted("SIGINT")
        self._stop = signal.Signals(number).name


@contextmanager
def no_exit() -> Iterator[None]:
    """Hand on a signal that comes before the first step, at which Lightning ends the process.

    Raises:
        Interrupted: It was SIGTERM, and nobody else handles that.
    """
    try:
        yield
    except SIGTERMException:
        raise Interrupted("SIGTERM") from None
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise end.__context__ from None
        raise


def check_checkpoint(path: Path, run: str) -> str:
    """The precision that a checkpoint was trained in; one that is damaged or foreign is refused.

    Nothing in the file is executed: its checksums are compared first, then its tensors and plain
    values are read without pickle's imports.

    Raises:
        UserError: It is not a whole checkpoint of this run.
    """
    try:
        with ZipFile(path) as archive:
            bad = archive.testzip()
        if bad is not None:
            raise BadZipFile(f"{bad} has another checksum")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state = content["callbacks"]["Checkpoint"]
        owner, precision = state["run"], str(state["precision"])
    except (BadZipFile, UnpicklingError, OSError, RuntimeError, EOFError, ValueError) as error:
        reason = "other objects than tensors" if isinstance(error, UnpicklingError) else ""
        raise _refused(path, f"damaged or foreign: {reason or reason_of(error)}") from None
    except (KeyError, TypeError, IndexError, AttributeError):
        raise _refused(path, "not a checkpoint of mlkd") from None
    if owner != run:
        raise _refused(path, f"it belongs to {str(owner)[:80]!r}")
    return precision


def _refused(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: refused ({reason}); remove it to start the link from its beginning")
