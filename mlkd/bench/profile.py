"""Case: where the time of a training step goes, by kind of operation."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

from mlkd.bench.contest import TableLine
from mlkd.bench.stage import Lesson, device, run_stage
from mlkd.bench.training import open_for_training, with_languages
from mlkd.config.bench import BenchmarkConfig
from mlkd.machine.hardware import resolve_precision

_KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear", "mkldnn_linear", "matmul"),
    "attention": ("scaled_dot_product", "flash_attention", "efficient_attention", "softmax"),
    "GELU": ("gelu",),
    "layer norm": ("layer_norm", "native_layer_norm"),
    "rows picked and placed": ("embedding", "index", "gather", "scatter"),  # words, and attention
    "optimiser": ("fused_adam", "linalg_vector_norm", "foreach"),
    "casts and copies": ("copy", "to", "clone", "contiguous", "fill", "zero", "cat", "empty"),
    "sums and products": ("add", "mul", "div", "sum", "sub", "mean"),
}
"""Kinds of operations, by the first words of their names (without namespace and underscores);
the longest that fits counts."""
_WARM_UP = 3


class Profile(L.Callback):
    """Profiles the steps of a stage after some that warm up; validation is left out."""

    def __init__(self, place: torch.device) -> None:
        activities = [ProfilerActivity.CPU]
        if place.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities)
        self._cuda = place.type == "cuda"

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Start once the machine is warm."""
        if trainer.global_step == min(_WARM_UP, trainer.max_steps - 1):
            self._profiler.start()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Stop after the last step, before the validation."""
        if trainer.global_step == trainer.max_steps:
            self._profiler.stop()

    def shares(self) -> dict[str, float]:
        """Share of the operations' time by kind, the largest first."""
        spent: dict[str, float] = {}
        for event in self._profiler.key_averages():
            if not event.key.startswith(("aten::", "mkldnn::")):
                continue
            own = event.self_device_time_total if self._cuda else event.self_cpu_time_total
            kind = kind_of(event.key)
            spent[kind] = spent.get(kind, 0.0) + own
        total = sum(spent.values())
        return {kind: spent[kind] / total for kind in sorted(spent, key=lambda k: -spent[k])}


def kind_of(operation: str) -> str:
    """The kind of an operation of torch, such as ``aten::addmm``."""
    name = operation.rpartition("::")[2].strip("_")
    fits = [
        (len(start), kind)
        for kind, starts in _KINDS.items()
        for start in starts
        if name.startswith(start)
    ]
    return max(fits)[1] if fits else "other"


def measure(config: BenchmarkConfig) -> list[TableLine]:
    """The assistant stage of the case ``minilm``, in each precision."""
    chain = open_for_training(with_languages(config, 1, "de"))
    place = device(chain.config)
    lesson = Lesson(chain.config, chain, chain.given["base"], config.benchmark.clock)
    lines: list[TableLine] = []
    for precision in dict.fromkeys(("fp32", resolve_precision(config.trainer.precision, place))):
        watched = Profile(place)
        run_stage(lesson, precision, watched)
        lines += [{"name": f"{precision}: {k}", "share": v} for k, v in watched.shares().items()]
    return lines
