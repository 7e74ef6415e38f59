"""What all stages share: optimiser, schedule, logging, validation, exact checkpoints."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from mlkd.config.schema import OptimConfig, StageConfig
from mlkd.data.module import PairBatch
from mlkd.encoders.forward import encode
from mlkd.losses import build_loss
from mlkd.losses.mcl import cosines
from mlkd.losses.vectors import PairVectors
from mlkd.machine import ranks


@dataclass(frozen=True)
class StepOutput:
    """Result of one step."""

    loss: Tensor
    """Scalar with gradients."""
    logs: dict[str, Tensor]
    """Scalars to log, without gradients."""


class Stage(L.LightningModule):
    """One distillation stage (Ding et al., 2022, figure 2).

    A subclass states which targets it needs; most need nothing else. It may restrict what is
    trained (:meth:`trained`) and how vectors are made (:meth:`encode`), or replace :meth:`step`.
    """

    name: ClassVar[str]
    starts_from: ClassVar[Literal["assistant", "student"]] = "student"
    """What the stage trains: the assistant, or the student of the link before."""
    target_encoder: ClassVar[Literal["teacher", "assistant", "assistant_embeddings"]]
    """Whose vectors are the targets."""
    translation_target: ClassVar[Literal["source", "translation"]]
    """Whose vector the translation side aims at: the source sentence's or its own."""

    def __init__(
        self, model: SentenceTransformer, config: StageConfig, optim: OptimConfig, steps: int
    ) -> None:
        """Set up a stage.

        Args:
            model: The encoder to train, changed in place.
            config: Step size and loss.
            optim: Optimiser and schedule.
            steps: Optimiser steps of the whole run.
        """
        super().__init__()
        self.model = model
        self.loss = build_loss(config.loss)
        self._config, self._optim, self._steps = config, optim, steps
        model.requires_grad_(False)
        self.trained().requires_grad_(True)
        self.dev = MetricCollection(
            {name: MeanMetric() for name in ("loss", "accuracy", *self.loss.terms)}
        )
        self._gradient_norm: Tensor | None = None
        self._rng: Tensor | None = None
        self._cuda_rng: Tensor | None = None

    def trained(self) -> nn.Module:
        """The part whose parameters are trained."""
        return self.model

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Sentence vectors ``(U, d)`` of token ids and mask ``(U, S)``."""
        return encode(self.model, ids, mask).sentence

    def vectors(self, batch: PairBatch) -> PairVectors:
        """Encode each distinct sentence once and hand out its vector to both sides."""
        encoded = self.encode(batch.ids, batch.mask).float()  # (U, d)
        return PairVectors(
            encoded[batch.source],
            encoded[batch.translation],
            batch.source_target,
            batch.translation_target,
            batch.sentences[batch.source],
            batch.sentences[batch.translation],
        )

    def step(self, batch: PairBatch) -> StepOutput:
        """Loss of one batch, and on dev how often a translation finds its source in it."""
        vectors = self.vectors(batch)
        # Mixed precision is for the encoder: the products of a similarity matrix are fp32.
        with torch.autocast(self.device.type, enabled=False):
            loss, logs = self.loss(vectors)
            if not self.training:
                logs["accuracy"] = _retrieval(vectors)
        return StepOutput(loss, logs)

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Log and return the loss."""
        output = self.step(batch)
        logs = {"train/loss": output.loss.detach()}
        logs |= {f"train/{name}": value for name, value in output.logs.items()}
        logs["train/lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict(logs, batch_size=len(batch.source), sync_dist=True)
        return output.loss

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add a dev batch to the means."""
        output = self.step(batch)
        for name, value in {"loss": output.loss, **output.logs}.items():
            self.dev[name].update(value, weight=len(batch.source))

    def on_validation_epoch_end(self) -> None:
        """Log the dev means."""
        values = {f"dev/{name}": value for name, value in self.dev.compute().items()}
        self.log_dict(values)
        self.dev.reset()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with decay on matrices only, linear warm-up, linear or cosine decay to 0."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            groups,
            lr=self._config.lr,
            betas=self._optim.betas,
            eps=self._optim.eps,
            weight_decay=self._optim.weight_decay,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def gradient_norm(self) -> Tensor:
        """Norm of all gradients before clipping, computed once a step."""
        if self._gradient_norm is None:
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            self._gradient_norm = nn.utils.get_total_norm(gradients)
        return self._gradient_norm

    def drop_gradients(self) -> None:
        """Leave this step out: the optimiser passes over parameters without a gradient."""
        self.zero_grad(set_to_none=True)
        self._gradient_norm = None

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clip the gradient norm here: Lightning refuses to do it for a fused optimiser."""
        norm, self._gradient_norm = self.gradient_norm(), None  # the next step has another one
        nn.utils.clip_grads_with_norm_(self.parameters(), self._optim.clip, norm)
        self.log("train/gradient_norm", norm)

    def _rate(self, step: int) -> float:
        """Learning rate at a step, as a share of its peak."""
        warmup = max(1, round(self._optim.warmup * self._steps))
        if step < warmup:
            return (step + 1) / warmup
        left = max(0.0, (self._steps - step) / max(1, self._steps - warmup))
        return left if self._optim.decay == "linear" else 0.5 * (1 - math.cos(math.pi * left))

    def decay_until(self, step: int, skipped: Collection[int]) -> float:
        """Factor that weight decay puts on a matrix entry without gradient by some step.

        The optimiser passes over everything in the steps that were ``skipped``.
        """
        taken = (earlier for earlier in range(step) if earlier not in skipped)
        rates = (self._config.lr * self._rate(earlier) for earlier in taken)
        return math.prod(1 - rate * self._optim.weight_decay for rate in rates)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the random state, of every process, so that dropout goes on where it stopped."""
        # What was taken over for the next step is still to come if that step has not begun.
        state = torch.get_rng_state() if self._rng is None else self._rng
        checkpoint["rng"] = torch.stack(ranks.of_all(state))
        if self.device.type == "cuda":
            cuda = self._cuda_rng
            state = torch.cuda.get_rng_state(self.device) if cuda is None else cuda
            checkpoint["cuda_rng"] = torch.stack(ranks.of_all(state))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the random state over for the next step."""
        # Cloned: torch reads the storage of a state from its beginning, whatever the offset.
        self._rng, self._cuda_rng = (
            None if states is None else states[ranks.rank() % len(states)].clone()
            for states in (checkpoint["rng"], checkpoint.get("cuda_rng"))
        )

    def on_train_start(self) -> None:
        """Train mode, also where the model came from a file in eval mode."""
        self.model.train()

    def on_train_batch_start(self, batch: PairBatch, batch_idx: int) -> None:
        """Restore the random state here: making the loader's iterator has drawn from it."""
        if self._rng is not None:
            torch.set_rng_state(self._rng)
            if self._cuda_rng is not None:
                torch.cuda.set_rng_state(self._cuda_rng, self.device)
            self._rng = self._cuda_rng = None


def _retrieval(vectors: PairVectors) -> Tensor:
    """Share of translations whose nearest source by cosine is their own."""
    nearest = cosines(vectors.translation, vectors.source).argmax(1)
    return (vectors.source_id[nearest] == vectors.source_id).float().mean()
