"""What all stages share: optimiser, schedule, logging, validation, exact checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torchmetrics import MeanMetric
from transformers import PreTrainedTokenizerBase

from mlkd.config.labelled import Task
from mlkd.config.stages import StageSettings
from mlkd.data.module import PairBatch
from mlkd.encoders.forward import encode
from mlkd.losses import weighted_sum
from mlkd.machine import ranks
from mlkd.stages.signals import Signals
from mlkd.targets.live import LiveEncoder


@dataclass(frozen=True)
class StepOutput:
    """Result of one step."""

    loss: Tensor
    """Scalar with gradients."""
    logs: dict[str, Tensor]
    """Scalars to log, without gradients."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained alike."""

    parameters: list[nn.Parameter]
    rate: float = 1.0
    """Their learning rate, in parts of the link's."""
    decay: float | None = None
    """Weight decay of all of them; None = that of the optimiser for matrices, none for vectors."""
    turn: Callable[[int], bool] | None = None
    """Whether a step is theirs; in other steps they stay as they are. None = every step is."""


def weighted(terms: Mapping[str, tuple[float, Tensor]]) -> StepOutput:
    """The weighted sum of terms, each logged by its name.

    Args:
        terms: Weight and value of each.
    """
    return StepOutput(*weighted_sum(terms))


class Stage(L.LightningModule):
    """How one training learns.

    A subclass says which signals it needs (:meth:`signals`) and what it minimises
    (:meth:`objective`). It may restrict what is trained (:meth:`trained`), add modules of its own,
    train parts differently (:meth:`parameter_groups`), select by another value (``selects``) and
    hand over more than the encoder (:meth:`outputs`). Whatever modules it has are in checkpoints
    and among the best weights.
    """

    selects: str = "dev/loss"
    """The logged value that decides which weights are the best,"""
    selects_largest: bool = False
    """and whether larger is better."""
    may_collapse: bool = False
    """Whether the dev vectors may come to lie in few points, as those of a few classes do."""

    def __init__(
        self,
        model: SentenceTransformer,
        settings: StageSettings,
        steps: int,
        live: Mapping[str, LiveEncoder] | None = None,
        folders: Mapping[str, Path] | None = None,
        task: Task | None = None,
        domains: Sequence[str] = (),
    ) -> None:
        """Set up a stage.

        Args:
            model: The encoder to train, changed in place.
            settings: Those of the link.
            steps: Optimiser steps of the whole run.
            live: Frozen encoders that run in the step, by role; they are no part of the module.
            folders: Of the inputs by role, but for a new student.
            task: What labelled text teaches, where the link trains on it.
            domains: What the numbers in ``PairBatch.domain`` stand for.
        """
        super().__init__()
        self.model, self.settings, self.live = model, settings, dict(live or {})
        self.folders, self.task = dict(folders or {}), task
        self._steps, self.domains = steps, list(domains)
        model.requires_grad_(False)
        self.trained().requires_grad_(True)
        self._groups: list[ParameterGroup] = []
        self._dev: dict[str, MeanMetric] = {}
        self._gradient_norm: Tensor | None = None
        self._rng: Tensor | None = None
        self._cuda_rng: Tensor | None = None

    @classmethod
    def signals(cls, settings: StageSettings) -> Signals:
        """What the stage reads besides the pairs."""
        raise NotImplementedError

    @classmethod
    def more_pieces(
        cls, settings: StageSettings, tokenizer: PreTrainedTokenizerBase
    ) -> Collection[int]:
        """Ids of the pieces that the stage gives the encoder besides those of the text."""
        return ()

    def objective(self, batch: PairBatch) -> StepOutput:
        """Loss of one batch, in training and on dev."""
        raise NotImplementedError

    def trained(self) -> nn.Module:
        """The part of the encoder whose parameters are trained."""
        return self.model

    def parameter_groups(self) -> list[ParameterGroup]:
        """All parameters that are trained, each once; the stage's own modules too."""
        return [ParameterGroup([p for p in self.parameters() if p.requires_grad])]

    def outputs(self) -> dict[str, Callable[[Path], None]]:
        """What is handed over besides the encoder: names, and what writes each into a folder."""
        return {}

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Sentence vectors ``(U, d)`` of token ids and mask ``(U, S)``."""
        return encode(self.model, ids, mask).sentence

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Log and return the loss."""
        output = self.objective(batch)
        logs = {"train/loss": output.loss.detach()}
        logs |= {f"train/{name}": value for name, value in output.logs.items()}
        self.log_dict(logs, batch_size=len(batch.pairs), sync_dist=True)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])  # equal everywhere
        return output.loss

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add a dev batch to the means."""
        output = self.objective(batch)
        for name, value in {"loss": output.loss, **output.logs}.items():
            mean = self._dev.setdefault(name, MeanMetric().to(self.device))
            mean.update(value, weight=len(batch.pairs))

    def on_validation_epoch_end(self) -> None:
        """Log the dev means."""
        self.log_dict({f"dev/{name}": mean.compute() for name, mean in self._dev.items()})
        for mean in self._dev.values():
            mean.reset()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with decay on matrices only, linear warm-up, linear or cosine decay to 0."""
        optim, self._groups = self.settings.optim, self.parameter_groups()
        groups: list[dict[str, Any]] = []
        for group in self._groups:
            for parameters in (
                [p for p in group.parameters if p.ndim > 1],
                [p for p in group.parameters if p.ndim <= 1],
            ):
                if parameters:
                    decay = self._decay(group, parameters[0])
                    rate = self.settings.lr * group.rate
                    groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
        optimizer = torch.optim.AdamW(
            groups, lr=self.settings.lr, betas=optim.betas, eps=optim.eps, fused=True
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_after_backward(self) -> None:
        """Pass over the groups whose turn it is not."""
        for group in self._groups:
            if group.turn is not None and not group.turn(self.trainer.global_step):
                for parameter in group.parameters:
                    parameter.grad = None

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
        nn.utils.clip_grads_with_norm_(self.parameters(), self.settings.optim.clip, norm)
        self.log("train/gradient_norm", norm)

    def _rate(self, step: int) -> float:
        """Learning rate at a step, as a share of its peak."""
        optim = self.settings.optim
        warmup = max(1, round(optim.warmup * self._steps))
        if step < warmup:
            return (step + 1) / warmup
        left = max(0.0, (self._steps - step) / max(1, self._steps - warmup))
        return left if optim.decay == "linear" else 0.5 * (1 - math.cos(math.pi * left))

    def decay_until(self, parameter: nn.Parameter, step: int, skipped: Collection[int]) -> float:
        """Factor that weight decay puts on an entry without gradient by some step.

        The optimiser passes over everything in the steps that were ``skipped``, and over a group in
        steps that are not its turn.
        """
        for group in self._groups:
            if any(parameter is other for other in group.parameters):
                break
        else:  # it is not trained
            return 1.0
        turn = group.turn or (lambda step: True)
        taken = (earlier for earlier in range(step) if earlier not in skipped and turn(earlier))
        peak, decay = self.settings.lr * group.rate, self._decay(group, parameter)
        return math.prod(1 - peak * self._rate(earlier) * decay for earlier in taken)

    def _decay(self, group: ParameterGroup, parameter: nn.Parameter) -> float:
        """Weight decay of a parameter."""
        if group.decay is not None:
            return group.decay
        return self.settings.optim.weight_decay if parameter.ndim > 1 else 0.0

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
