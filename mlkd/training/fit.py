"""One training run: stores, targets, plan, Lightning trainer."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from sentence_transformers import SentenceTransformer

from mlkd.config.training import LoggerConfig
from mlkd.data.module import PairSource, ParallelPairs
from mlkd.data.plan import labels
from mlkd.data.tokens import tokenise
from mlkd.encoders.backbone import backbone_of
from mlkd.machine import ranks
from mlkd.machine.hardware import describe_hardware, device_of, resolve_precision
from mlkd.runs.record import Run
from mlkd.stages import stage_of
from mlkd.stages.base import Stage
from mlkd.training.best import KeepBest
from mlkd.training.checkpoint import Checkpoint, check_checkpoint, no_exit
from mlkd.training.curves import Curves
from mlkd.training.guard import Guard
from mlkd.training.pulse import ProgressBar, Pulse
from mlkd.training.reads import Reads
from mlkd.training.trainable import trainable
from mlkd.training.wandb_logger import open_wandb

_SAMPLE = 256
"""Dev pairs whose vectors show whether the embedding space is sound."""


@dataclass(frozen=True)
class Training:
    """What one link trains on and where its files go."""

    reads: Reads
    run: Run
    starts_random: bool
    """Whether the encoder has random layers, whose vectors have not spread yet."""
    logger: LoggerConfig
    config: dict[str, Any]
    """The whole configuration, for W&B."""
    deadline: float | None
    """``time.monotonic()`` at which training saves and stops."""


def fit(
    training: Training, model: SentenceTransformer, *callbacks: L.Callback
) -> tuple[Stage, dict[str, Any], str | None]:
    """Train ``model`` in place, from the run's checkpoint if there is one.

    The best weights on dev are in ``model`` at the end. ``callbacks`` watch the training.

    Returns:
        The stage; steps, wall time and the dev curve, for the run record; and why the process is to
        stop once the model is saved, if it was asked to after the last step had begun.
    """
    reads, run = training.reads, training.run
    settings, trainer_config = reads.settings, reads.trainer
    started = time.monotonic()
    kind = stage_of(settings)
    signals = kind.signals(settings)
    tokens = tokenise(reads.pairs, model.tokenizer, reads.data.max_tokens, reads.cache)
    plan, steps = reads.batch_plan(tokens)
    dev = reads.dev_pairs(tokens)
    by = "domain" if settings.grouping is None else settings.grouping.by
    source = PairSource(reads.pairs, tokens, by=by)
    if (vectors := signals.vectors) is not None:
        wanted = reads.sentences(vectors, plan.pairs_until(steps), dev)
        source = replace(
            source,
            targets=reads.targets(vectors, wanted),
            translation_target=vectors.translation,
        )
    data = ParallelPairs(source, plan, steps=steps, dev_pairs=dev, dev_batch_size=plan.batch_size)
    device = device_of(trainer_config.accelerator)
    resume = ranks.from_first(run.checkpoint if run.checkpoint.is_file() else None)
    # A run that was begun in bf16 goes on in bf16, even on a machine that would not choose it.
    began = check_checkpoint(resume, run.id) if resume else None
    chosen = began or ranks.from_first(resolve_precision(trainer_config.precision, device))
    precision: str = chosen
    live = {role: reads.live(role, model.tokenizer) for role in sorted(signals.live)}
    occurs = torch.from_numpy(tokens.frequency(backbone_of(model).config.vocab_size) > 0)
    occurs[list(kind.more_pieces(settings, model.tokenizer))] = True
    ready = trainable(model, occurs, dropout=settings.dropout, precision=precision, device=device)
    with ready as words, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders that are not files
        L.seed_everything(reads.seed + ranks.rank(), verbose=False)  # dropout differs
        folders = {role: encoder.folder for role, encoder in reads.encoders.items()}
        domains = labels(reads.pairs, dev, by)[1]
        module = kind(model, settings, steps, live, folders, reads.pairs.task, domains)
        best = KeepBest(run.best, module.selects, module.selects_largest)
        guard = _guard(training, source, dev, may_collapse=module.may_collapse)
        checkpoint = _checkpoint(training, precision, best, guard)
        trainer = _trainer(training, precision, steps, [guard, checkpoint, best, *callbacks])
        with no_exit():
            trainer.fit(module, data, ckpt_path=resume, weights_only=True)
            if not best.curve or best.curve[-1]["step"] != steps:
                trainer.validate(module, data, verbose=False)
        module.cpu()
        if ranks.is_first():
            best.restore(module)
        step = int(best.best["step"])
        if words is not None:
            words.decay = module.decay_until(words.rows.weight, step, guard.skipped)
    summary = {
        "steps": steps,
        "seconds": round(checkpoint.earlier + time.monotonic() - started, 1),
        "precision": precision,
        "processes": trainer_config.processes,
        "hardware": describe_hardware(device),
        "best": best.best,
        "curve": best.curve,
        "checkpoints": checkpoint.cost(),
        "skipped_batches": guard.skipped,
    }
    return module, summary, checkpoint.asked()


def _guard(training: Training, source: PairSource, dev: np.ndarray, *, may_collapse: bool) -> Guard:
    """What looks at every step, and at the vectors of a sample of the dev pairs."""
    sample = dev[np.linspace(0, len(dev) - 1, min(len(dev), _SAMPLE)).astype(int)]
    return Guard(
        training.run.folder,
        training.reads.pairs,
        source.batch(sample),
        skip=training.reads.trainer.skip_bad_batches,
        random=training.starts_random,
        may_collapse=may_collapse,
        checkpoint=training.run.last_step,
    )


def _checkpoint(training: Training, precision: str, best: KeepBest, guard: Guard) -> Checkpoint:
    """What saves the whole state of the training."""
    settings = training.reads.trainer
    return Checkpoint(
        training.run.checkpoint,
        training.run.id,
        precision,
        best,
        guard.settle,
        minutes=settings.save_minutes,
        steps=settings.save_steps,
        share=settings.save_cost,
        deadline=training.deadline,
    )


def _trainer(
    training: Training, precision: str, steps: int, callbacks: list[L.Callback]
) -> L.Trainer:
    """Lightning's trainer, with the loggers of the run."""
    run, settings = training.run, training.reads.trainer
    loggers: list[Logger] = []
    watching = list(callbacks)
    if ranks.is_first():
        loggers.append(Curves(run.folder / "curves" / "metrics.csv"))
        watching.append(ProgressBar(run.link))
    if ranks.is_first() and training.logger.kind == "wandb":
        loggers.append(open_wandb(run, training.logger, training.config))
        watching.append(Pulse(loggers[-1]))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return L.Trainer(
        accelerator=device_of(settings.accelerator).type,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=_strategy(),
        plugins=ranks.cluster_environment(),
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=-(-steps // settings.validations),
        check_val_every_n_epoch=None,
        log_every_n_steps=10,
        callbacks=watching,
        logger=loggers,
        default_root_dir=run.folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def _strategy() -> str | DDPStrategy:
    """How Lightning trains: alone, or together with other processes.

    Some encoders have a pooler that mean pooling leaves without a gradient; buffers are constant.
    """
    if ranks.world_size() == 1:
        return "auto"
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
