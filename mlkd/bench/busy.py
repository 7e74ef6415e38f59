"""Case: a teacher beside busy processes, with threads that spin while they wait and without.

Each way is a process of its own (:mod:`mlkd.bench.worker`). Both live through the whole case and
work by turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np

from mlkd.bench.contest import TableLine
from mlkd.bench.training import open_for_training, with_languages
from mlkd.config.bench import BenchmarkConfig
from mlkd.output.errors import UserError
from mlkd.output.process import WAITING, WAITS

_LOADS = (0, 1, 3)
"""Busy processes beside the one that is measured."""


def measure(config: BenchmarkConfig) -> list[TableLine]:
    """The teacher encodes English sentences, forward alone and with its gradients."""
    settings = config.benchmark
    chain = open_for_training(with_languages(config, 1, "de"))
    sources = np.unique(chain.pairs.source)
    drawn = np.random.default_rng(0).permutation(sources)[: settings.sentences]
    order = {
        "folder": str(chain.teacher),
        "texts": chain.pairs.texts(drawn),
        "max_tokens": chain.config.data.max_tokens,
        "threads": config.trainer.threads or len(os.sched_getaffinity(0)),
    }
    usual = {key: value for key, value in os.environ.items() if key not in WAITS}
    lines: list[TableLine] = []
    with _worker(usual, order) as spins, _worker(usual | WAITING, order) as waits:
        for load in _LOADS:
            with _busy(load):
                turns = [(spins(), waits()) for _ in range(settings.turns)]
            for work in ("targets", "training"):
                rates = [[turn[i][work] for turn in turns] for i in (0, 1)]
                name = f"{work}, {load} busy processes" if load else f"{work}, alone"
                ratio = median(b / a for a, b in zip(*rates, strict=True))
                lines.append({"name": f"{name}: spinning", "sentences_per_s": median(rates[0])})
                lines.append(
                    {
                        "name": f"{name}: mlkd",
                        "sentences_per_s": median(rates[1]),
                        "spinning_ratio": ratio,
                    }
                )
    return lines


@contextmanager
def _worker(environment: dict[str, str], order: dict[str, Any]) -> Iterator[Any]:
    """A process that measures; each call is a turn, whose rates it gives."""
    with subprocess.Popen(
        [sys.executable, "-m", "mlkd.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        asked, told = process.stdin, process.stdout

        def turn(line: str = "") -> dict[str, float]:
            print(line, file=asked, flush=True)
            if not (answer := told.readline()):
                raise UserError("busy: a process that measures has ended")
            rates: dict[str, float] = json.loads(answer)
            return rates

        try:
            turn(json.dumps(order))
            yield turn
        finally:
            asked.close()


@contextmanager
def _busy(number: int) -> Iterator[None]:
    """Processes that do nothing but take time."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in others:
            process.kill()
            process.wait()
