"""One training run: stores, targets, plan, Lightning trainer."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from sentence_transformers import SentenceTransformer

from mlkd.config.schema import StageName, TrainConfig
from mlkd.data.module import PairSource, ParallelPairs
from mlkd.data.pairs import PairStore
from mlkd.data.tokens import tokenise
from mlkd.encoders.backbone import backbone_of, set_dropout
from mlkd.machine import ranks
from mlkd.machine.hardware import choose_kernels, describe, device_of, resolve_precision
from mlkd.recipes.links import links
from mlkd.runs.record import Run
from mlkd.stages import STAGES
from mlkd.student.table import WholeTable
from mlkd.training.checkpoint import Checkpoint, KeepBest, check_checkpoint
from mlkd.training.curves import Curves
from mlkd.training.guard import Guard
from mlkd.training.pulse import ProgressBar, Pulse
from mlkd.training.reads import batch_plan, dev_pairs, target_sentences, target_vectors
from mlkd.training.wandb_logger import open_wandb

_SAMPLE = 256
"""Dev pairs whose vectors show whether the embedding space is sound."""


@dataclass(frozen=True)
class Job:
    """What one link trains on and where its files go."""

    config: TrainConfig
    pairs: PairStore
    cache: Path
    teacher: Path
    assistant: Path
    run: Run
    name: StageName
    deadline: float | None
    """``time.monotonic()`` at which training saves and stops."""


def fit(
    job: Job, model: SentenceTransformer, *callbacks: L.Callback
) -> tuple[dict[str, Any], str | None]:
    """Train ``model`` in place, from the run's checkpoint if there is one.

    The best weights on dev are in ``model`` at the end. ``callbacks`` watch the training.

    Returns:
        Steps, wall time and the dev curve, for the run record; and why the process is to stop once
        the model is saved, if it was asked to after the last step had begun.
    """
    config, stage, settings = job.config, STAGES[job.name], job.config.stages[job.name]
    started = time.monotonic()
    tokens = tokenise(job.pairs, model.tokenizer, config.data.max_tokens, job.cache)
    plan, steps = batch_plan(config, job.pairs, tokens, job.name)
    dev = dev_pairs(config, job.pairs, tokens)
    wanted = target_sentences(job.pairs, job.name, plan.pairs_until(steps), dev)
    encoders = {"teacher": job.teacher, "assistant": job.assistant}
    targets = target_vectors(config, job.pairs, job.cache, encoders, job.name, wanted)
    source = PairSource(job.pairs, tokens, targets, stage.translation_target)
    data = ParallelPairs(source, plan, steps=steps, dev_pairs=dev, dev_batch_size=plan.batch_size)
    device = device_of(config.trainer.accelerator)
    resume = ranks.from_first(job.run.checkpoint if job.run.checkpoint.is_file() else None)
    # A run that was begun in bf16 goes on in bf16, even on a machine that would not choose it.
    began = check_checkpoint(resume, job.run.id) if resume else None
    precision = began or ranks.from_first(resolve_precision(config.trainer.precision, device))
    choose_kernels(backbone_of(model), precision, device)
    set_dropout(model, settings.dropout)
    vocabulary = backbone_of(model).config.vocab_size
    occurs = torch.from_numpy(tokens.frequency(vocabulary) > 0)
    words = WholeTable.take_out(backbone_of(model), occurs)
    L.seed_everything(config.seed_of(job.name) + ranks.rank(), verbose=False)  # dropout differs
    module = stage(model, settings, config.optim, steps)
    best = KeepBest(job.run.best)
    guard = _guard(job, source, dev)
    checkpoint = _checkpoint(job, precision, best, guard)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders that are not files
        trainer = _trainer(job, precision, steps, [guard, checkpoint, best, *callbacks])
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
        if not best.curve or best.curve[-1]["step"] != steps:
            trainer.validate(module, data, verbose=False)
    module.cpu()
    if ranks.is_first():
        best.restore(model)
    words.put_back(module.decay_until(int(best.best["step"]), guard.skipped))
    choose_kernels(backbone_of(model), precision, device)  # the stage had its own
    set_dropout(model, backbone_of(model).config.hidden_dropout_prob)
    model.requires_grad_(True).eval()
    summary = {
        "steps": steps,
        "seconds": round(time.monotonic() - started, 1),
        "precision": precision,
        "processes": config.trainer.processes,
        "hardware": describe(device),
        "best": best.best,
        "curve": best.curve,
        "checkpoints": checkpoint.cost(),
        "skipped_batches": guard.skipped,
    }
    return summary, checkpoint.asked()


def _guard(job: Job, source: PairSource, dev: np.ndarray) -> Guard:
    """What looks at every step, and at the vectors of a sample of the dev pairs."""
    sample = dev[np.linspace(0, len(dev) - 1, min(len(dev), _SAMPLE)).astype(int)]
    return Guard(
        job.run.folder,
        job.pairs,
        source.batch(sample),
        skip=job.config.trainer.skip_bad_batches,
        random=_is_random(job),
        checkpoint=job.run.last_step,
    )


def _is_random(job: Job) -> bool:
    """Whether a student from scratch has not been trained as a whole yet."""
    if job.name == "assistant" or job.config.init.source != "scratch":
        return False
    order = links(job.config)
    return "recurrent" not in order[: order.index(job.name)]


def _checkpoint(job: Job, precision: str, best: KeepBest, guard: Guard) -> Checkpoint:
    """What saves the whole state of the training."""
    settings = job.config.trainer
    return Checkpoint(
        job.run.checkpoint,
        job.run.id,
        precision,
        best,
        guard.settle,
        minutes=settings.save_minutes,
        steps=settings.save_steps,
        share=settings.save_cost,
        deadline=job.deadline,
    )


def _trainer(job: Job, precision: str, steps: int, callbacks: list[L.Callback]) -> L.Trainer:
    """Lightning's trainer, with the loggers of the run."""
    config = job.config
    loggers: list[Logger] = []
    watching = list(callbacks)
    if ranks.is_first():
        loggers.append(Curves(job.run.folder / "curves" / "metrics.csv"))
        watching.append(ProgressBar(job.name))
    if ranks.is_first() and config.logger.kind == "wandb":
        loggers.append(open_wandb(job.run, config.logger, config.model_dump(mode="json")))
        watching.append(Pulse(loggers[-1]))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return L.Trainer(
        accelerator=device_of(config.trainer.accelerator).type,
        devices=config.trainer.devices,
        num_nodes=config.trainer.nodes,
        strategy=_strategy(),
        plugins=ranks.environment(),
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=-(-steps // config.trainer.validations),
        check_val_every_n_epoch=None,
        log_every_n_steps=10,
        callbacks=watching,
        logger=loggers,
        default_root_dir=job.run.folder,
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
