"""Stops a run whose numbers have gone wrong, and says where."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from mlkd.data.module import PairBatch
from mlkd.data.store import PairStore
from mlkd.machine import ranks
from mlkd.output.errors import UserError
from mlkd.storage.files import write_json

log = logging.getLogger(__name__)

MAX_COSINE = 0.99
"""Embedding spaces with a larger mean pairwise cosine have collapsed to a point."""
MIN_RANK = 1.5
"""Embedding spaces with a smaller effective rank have collapsed to a line."""


class Guard(L.Callback):
    """Looks at the loss and gradient of every step, and at the embedding space at every validation.

    A step is looked at while the next one is under way, so that no device is waited for; before
    anything is saved, and where batches may be skipped, it is looked at once.
    """

    def __init__(
        self,
        folder: Path,
        pairs: PairStore,
        sample: PairBatch,
        *,
        skip: int,
        random: bool,
        may_collapse: bool = False,
        checkpoint: Callable[[], str],
    ) -> None:
        """Set up.

        Args:
            folder: The run folder, where the sentences of a bad batch are listed.
            pairs: Their store.
            sample: The fixed dev batch whose vectors show the embedding space.
            skip: So many bad batches are left out; one more stops the run.
            random: Whether the encoder starts from random weights: what it learns first is the mean
                of the targets, so that a collapsed space is reported, but stops nothing.
            may_collapse: Nothing is said of a collapsed space as long as it has numbers.
            checkpoint: Says from where the run can go on.
        """
        self._folder, self._pairs, self._sample = folder, pairs, sample
        self._skip, self._checkpoint = skip, checkpoint
        self._pending: tuple[int, Tensor, _Underway] | None = None
        self._collapsed_at_start: bool | None = True if random else None
        self._may_collapse = may_collapse
        self.skipped: list[int] = []

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Look at the embedding space before the first step."""
        if self._collapsed_at_start is None:
            self._collapsed_at_start = _has_collapsed(*self._spread(module))

    def on_train_batch_start(
        self, trainer: L.Trainer, module: Any, batch: PairBatch, batch_idx: int
    ) -> None:
        """Remember which pairs a step trains on."""
        self._batch = batch.pairs

    def on_before_backward(self, trainer: L.Trainer, module: Any, loss: Tensor) -> None:
        """Remember the loss of all processes, so that all judge a step alike."""
        self._loss = ranks.mean(loss.detach())

    def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
        """Look at the step before this one, or at this one if it may be skipped."""
        self.settle()
        values = _Underway(self._loss, module.gradient_norm())
        self._pending = trainer.global_step, self._batch, values
        if len(self.skipped) >= self._skip or values.are_finite():
            return
        self._pending = None
        self.skipped.append(trainer.global_step)
        log.warning("step %d: left out, %s", trainer.global_step, values)
        module.drop_gradients()

    def settle(self) -> None:
        """Look at the last step.

        Raises:
            UserError: Its loss or gradient is no number; the sentences are written to a file.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        step, batch, values = pending
        if values.are_finite():
            return
        rows = [row for part in ranks.of_all(batch.tolist()) for row in part]
        sentences = [[int(self._pairs.source[i]), int(self._pairs.translation[i])] for i in rows]
        path = self._folder / "bad-batch.json"
        texts = [[self._pairs.text(i) for i in pair] for pair in sentences]
        listed = [
            {"pair": row, "sentences": ids, "texts": text}
            for row, ids, text in zip(rows, sentences, texts, strict=True)
        ]
        loss, norm = values.read()
        found = {"step": step, "loss": str(loss), "gradient_norm": str(norm)}
        if ranks.is_first():
            write_json(path, found | {"store": str(self._pairs.folder), "batch": listed})
        first = ", ".join(str(i) for pair in sentences[:3] for i in pair)
        raise UserError(
            f"{self._folder.name}: stopped at step {step}, {values}; sentences "
            f"{first}, ... ({path}); {self._checkpoint()}; trainer.skip_bad_batches="
            f"{len(self.skipped) + 1} leaves the batch out"
        )

    def on_validation_start(self, trainer: L.Trainer, module: Any) -> None:
        """Look at the step before."""
        self.settle()

    def on_validation_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        """Log how far the vectors spread, and stop if they have collapsed."""
        cosine, rank = self._spread(module)
        # The trainer gives callbacks a log_dict of their own.
        self.log_dict({"dev/cosine": cosine, "dev/rank": rank})  # type: ignore[attr-defined]
        if not _has_collapsed(cosine, rank):
            return
        if self._may_collapse and math.isfinite(cosine + rank):
            return
        found = f"mean cosine {cosine:.4f}, effective rank {rank:.2f} of the dev vectors"
        if self._collapsed_at_start and math.isfinite(cosine + rank):
            log.warning(
                "step %d: the embedding space has not spread: %s", module.global_step, found
            )
            return
        raise UserError(
            f"{self._folder.name}: stopped at step {trainer.global_step}, the embedding space has "
            f"collapsed: {found} (limits {MAX_COSINE} and {MIN_RANK}); {self._checkpoint()}; "
            "a smaller lr or another loss may help"
        )

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        """Look at the last step of all."""
        self.settle()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"skipped": self.skipped, "collapsed_at_start": self._collapsed_at_start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = state_dict["skipped"]
        self._collapsed_at_start = state_dict["collapsed_at_start"]

    @torch.no_grad()
    def _spread(self, module: Any) -> tuple[float, float]:
        training = module.model.training
        module.model.eval()
        sample = module.transfer_batch_to_device(self._sample, module.device, 0)
        vectors = module.encode(sample.ids, sample.mask)
        module.model.train(training)
        return spread(vectors)


class _Underway:
    """Loss and gradient norm on their way from the device; reading waits for nothing behind."""

    def __init__(self, loss: Tensor, norm: Tensor) -> None:
        values = torch.stack([loss, norm.to(loss.device)])
        self._values = values.to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if values.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> tuple[float, float]:
        """Loss and gradient norm."""
        if self._arrived is not None:
            self._arrived.synchronize()
        loss, norm = self._values.tolist()
        return loss, norm

    def are_finite(self) -> bool:
        """Whether both are numbers."""
        return all(math.isfinite(value) for value in self.read())

    def __str__(self) -> str:
        loss, norm = self.read()
        return f"loss {loss:.4g} and gradient norm {norm:.4g} are not both finite"


def spread(vectors: Tensor) -> tuple[float, float]:
    """How far vectors spread.

    Args:
        vectors: ``(n, d)``, n > 1.

    Returns:
        Mean cosine of all pairs, and effective rank of the centred vectors: the exponential of the
        entropy of their singular values (Roy and Vetterli, 2007); NaN where a vector is not finite.
    """
    vectors = vectors.double()
    if not vectors.isfinite().all():
        return math.nan, math.nan
    unit = nn.functional.normalize(vectors, dim=-1)
    n = len(unit)
    cosine = (unit.sum(0).square().sum() - n) / (n * (n - 1))
    values = torch.linalg.svdvals(vectors - vectors.mean(0))
    shares = values / values.sum().clamp_min(1e-300)
    rank = torch.special.entr(shares).sum().exp()
    return float(cosine), float(rank)


def _has_collapsed(cosine: float, rank: float) -> bool:
    return not (cosine <= MAX_COSINE and rank >= MIN_RANK)  # NaN is neither
