"""The other contestant: sentence-transformers' trainer with MSELoss, as its recipe uses it.

The recipe is sentence-transformers' ``make_multilingual``: columns ``english``, ``non_english`` and
``label`` with the teacher's vectors, which here as there are computed before training.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import MSELoss
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback

from mlkd.bench.contest import Turn
from mlkd.bench.machine import clock_seconds, synchronize
from mlkd.bench.stage import Lesson, device, operations_a_token
from mlkd.encoders.backbone import set_dropout
from mlkd.encoders.folder import load_folder


@dataclass(frozen=True)
class PeerReport:
    """A finished training of the peer."""

    turn: Turn
    losses: list[float]
    """Of each step, if they were asked for."""


class _Meter(TrainerCallback):
    """Times the steps; a hook counts what the model was given."""

    def __init__(self, clock: str, place: Any) -> None:
        self._clock, self._place = clock, place
        self.tokens, self.cells = 0, 0
        self.losses: list[float] = []

    def count(self, module: Any, arguments: tuple[Any, ...]) -> None:
        """Forward hook: features come first."""
        mask = arguments[0]["attention_mask"]
        self.tokens += int(mask.sum())
        self.cells += mask.numel()

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock before the first batch is made."""
        synchronize(self._place)
        self._start = clock_seconds(self._clock)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop it after the last step; the others are overwritten."""
        synchronize(self._place)
        self.seconds = clock_seconds(self._clock) - self._start

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Keep the losses."""
        if "loss" in kwargs["logs"]:
            self.losses.append(float(kwargs["logs"]["loss"]))


def peer_data(lesson: Lesson, pairs: np.ndarray, targets: np.ndarray) -> Dataset:
    """The peer's table of some pairs.

    Args:
        lesson: Whose pair store.
        pairs: Indices in the order of the table ``(n,)``.
        targets: Teacher vectors of their sources ``(n, d)``.
    """
    store = lesson.chain.pairs
    return Dataset.from_dict(
        {
            "english": store.texts(store.source[pairs]),
            "non_english": store.texts(store.translation[pairs]),
            "label": targets,
        }
    )


def run_peer(
    lesson: Lesson,
    data: Dataset,
    precision: str,
    *,
    dropout: float | None = 0.0,
    ordered: bool = False,
    optimizer: Callable[[Any], tuple[Any, Any]] = lambda model: (None, None),
) -> PeerReport:
    """Train a fresh copy of the model for one pass over the table.

    Args:
        lesson: What is trained.
        data: See :func:`peer_data`.
        precision: ``fp32`` or ``bf16``.
        dropout: None = the model's own.
        ordered: Take the pairs in the order of the table and keep the loss of each step.
        optimizer: Gives optimiser and schedule of a model; the default leaves them to the peer.
    """
    settings = lesson.config.stages[lesson.config.stage]
    place = device(lesson.config)
    model = load_folder(lesson.model).to(place)
    model.max_seq_length = lesson.config.data.max_tokens
    if dropout is not None:
        set_dropout(model, dropout)
    meter = _Meter(lesson.clock, place)
    model[0].register_forward_pre_hook(meter.count)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            per_device_train_batch_size=settings.batch_size,
            num_train_epochs=1,
            learning_rate=settings.lr,
            warmup_steps=lesson.config.optim.warmup,
            weight_decay=lesson.config.optim.weight_decay,
            adam_epsilon=lesson.config.optim.eps,
            max_grad_norm=lesson.config.optim.clip,
            bf16=precision == "bf16",
            use_cpu=place.type == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=1 if ordered else 500,
            seed=lesson.config.seed,
            batch_sampler=_in_order if ordered else "batch_sampler",
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=data,
            loss=MSELoss(model),
            callbacks=[meter],
            optimizers=optimizer(model),
        )
        trainer.train()
    turn = Turn(
        seconds=meter.seconds,
        sentences=2 * len(data),
        tokens=meter.tokens,
        cells=meter.cells,
        operations=operations_a_token(model) * meter.tokens,
        pairs=len(data),
    )
    return PeerReport(turn, meter.losses)


def _in_order(dataset: Any, batch_size: int, drop_last: bool, **kwargs: Any) -> Any:
    return DefaultBatchSampler(SequentialSampler(dataset), batch_size, drop_last)
