"""The benchmark: one file a case."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from mlkd.bench import (
    bottleneck,
    busy,
    chain,
    minilm,
    multilingual,
    pairs,
    profile,
    start,
    targets,
    vocabulary,
)
from mlkd.bench.contest import TableLine
from mlkd.config.bench import BenchmarkConfig
from mlkd.machine.hardware import describe_hardware, device_of
from mlkd.output.errors import UserError
from mlkd.runs.record import environment
from mlkd.storage.files import write_json

log = logging.getLogger(__name__)

CASES: dict[str, Callable[[BenchmarkConfig], list[TableLine]]] = {
    "minilm": minilm.measure,
    "multilingual": multilingual.measure,
    "vocabulary": vocabulary.measure,
    "bottleneck": bottleneck.measure,
    "targets": targets.measure,
    "busy": busy.measure,
    "chain": chain.measure,
    "pairs": pairs.measure,
    "start": start.measure,
    "profile": profile.measure,
}
"""Name in ``benchmark.cases`` and function."""


def measure_cases(config: BenchmarkConfig) -> Iterator[tuple[str, list[TableLine]]]:
    """Give the lines of each case as soon as they are there.

    Raises:
        UserError: The peer's trainer would use several GPUs, or a GPU's work is to be measured in
            CPU time.
    """
    if device_of(config.trainer.accelerator).type == "cuda":
        if config.benchmark.clock == "cpu":
            raise UserError("benchmark.clock=cpu: says nothing about a GPU; allowed there: wall")
        if torch.cuda.device_count() > 1:
            raise UserError("the peer would use every GPU; set CUDA_VISIBLE_DEVICES=0")
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    for name in config.benchmark.cases:
        log.info("case %s", name)
        yield name, CASES[name](config)


def save(config: BenchmarkConfig, name: str, lines: list[TableLine]) -> None:
    """Put the lines of a case into the JSON file; other cases in it stay."""
    path = Path(config.benchmark.output)
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    entry = {
        "hardware": describe_hardware(device_of(config.trainer.accelerator)),
        "environment": environment(),
        "settings": config.benchmark.model_dump(exclude={"cases", "output"}),
        "data": sorted(config.data.corpora),
        "lines": lines,
    }
    write_json(path, known | {name: entry})
