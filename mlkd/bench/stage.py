"""A contestant: one stage of mlkd, run by the same ``fit`` as in a chain."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor

from mlkd.bench.contest import Turn
from mlkd.bench.machine import clock_seconds, synchronize
from mlkd.config.losses import LossConfig, PairMSEConfig
from mlkd.config.schema import TrainConfig
from mlkd.data.module import PairBatch
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.encoders.bottleneck import BottleneckEmbedding
from mlkd.encoders.folder import load_folder
from mlkd.machine.hardware import device_of
from mlkd.output.errors import Interrupted, UserError
from mlkd.recipes.chain import Chain
from mlkd.recipes.recipe import Made, links, references
from mlkd.runs.record import Run
from mlkd.training.fit import Training, fit


@dataclass(frozen=True)
class Lesson:
    """What is trained, by whom: every contestant gets the same."""

    config: TrainConfig
    """Of one stage, from :func:`one_stage`."""
    chain: Chain
    model: Path
    """Encoder folder that every contestant starts from."""
    clock: str


class Meter(L.Callback):
    """Times the steps of a stage and counts what they ran; validation is left out."""

    def __init__(self, clock: str) -> None:
        self._clock = clock
        self.tokens, self.cells, self.between = 0, 0, 0.0
        self.pairs: list[np.ndarray] = []
        self.losses: list[Tensor] = []

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Start the clock before the first batch is made."""
        self.operations = operations_a_token(module.model)
        self._start = self._ended = self._now(module)

    def on_train_batch_start(
        self, trainer: L.Trainer, module: Any, batch: PairBatch, batch_idx: int
    ) -> None:
        """The batch is there; Lightning has made it since the last step."""
        self.between += self._now(module) - self._ended

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: PairBatch, batch_idx: int
    ) -> None:
        """Count the batch and stop the clock, until the next batch."""
        self.tokens += int(batch.mask.sum())
        self.cells += batch.mask.numel()
        self.pairs.append(batch.pairs.cpu().numpy())
        self.losses.append(outputs["loss"].detach())
        self._ended = self._now(module)
        self.seconds = self._ended - self._start

    def _now(self, module: Any) -> float:
        synchronize(module.device)
        return clock_seconds(self._clock)


@dataclass(frozen=True)
class StageReport:
    """A finished stage."""

    turn: Turn
    pairs: np.ndarray
    """Pairs in the order of training ``(steps, batch size)``."""
    losses: list[float] = field(default_factory=list)


def assistant_link(config: TrainConfig) -> str:
    """Name of the link that trains the assistant.

    Raises:
        UserError: None does.
    """
    found = references(config)["assistant"]
    if not isinstance(found, Made):
        raise UserError(
            f"recipe={config.recipe}: no link trains the assistant; assistant.train=true"
        )
    return found.link


def one_stage(config: TrainConfig, batch_size: int, steps: int) -> TrainConfig:
    """The assistant's link alone, with the peer's loss: the mean squared error over both sides."""
    values, stage = config.model_dump(), assistant_link(config)
    values["stages"][stage] |= {
        "loss": LossConfig(pair_mse=PairMSEConfig(weight=0.5)).model_dump(),
        "batch_size": batch_size,
        "max_steps": steps,
        "epochs": 1000.0,
        "dropout": 0.0,
    }
    values["trainer"] |= {"validations": 1, "save_minutes": 1000.0, "save_steps": None}
    return type(config).model_validate(values | {"stage": stage})


def run_stage(lesson: Lesson, precision: str, *callbacks: L.Callback) -> StageReport:
    """Train a fresh copy of the model; ``callbacks`` watch."""
    trainer = lesson.config.trainer.model_copy(update={"precision": precision})
    config = lesson.config.model_copy(update={"trainer": trainer})
    chain, meter = lesson.chain, Meter(lesson.clock)
    with tempfile.TemporaryDirectory() as folder:
        link = links(config)[-1]
        run = Run(Path(folder), link.name, link.settings.stage, {})
        reads = replace(chain, config=config).reads(link)
        training = Training(reads, run, False, config.logger, {}, deadline=None)
        *_, asked = fit(training, load_folder(lesson.model), meter, *callbacks)
    if asked is not None:
        raise Interrupted(asked)
    pairs = np.stack(meter.pairs)
    turn = Turn(
        seconds=meter.seconds,
        sentences=2 * pairs.size,
        tokens=meter.tokens,
        cells=meter.cells,
        operations=meter.operations * meter.tokens,
        pairs=pairs.size,
        between=meter.between,
    )
    return StageReport(turn, pairs, [float(loss) for loss in meter.losses])


def operations_a_token(model: Any) -> float:
    """Operations of a token, forward and backward: 6 a parameter that multiplies it.

    Layers that are run again count again. The products of queries with keys are left out, as is
    usual; at these lengths they are a few per cent.
    """
    backbone = backbone_of(model)
    parameters = sum(p.numel() for layer in layers(backbone) for p in layer.parameters())
    embedding = backbone.get_input_embeddings()
    if isinstance(embedding, BottleneckEmbedding):
        parameters += embedding.projection.weight.numel()
    return 6.0 * parameters


def device(config: TrainConfig) -> Any:
    """Where the stages run."""
    return device_of(config.trainer.accelerator)
