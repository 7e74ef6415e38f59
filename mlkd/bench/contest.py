"""Contestants in turns: what each turn did, and the medians over turns."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from mlkd.bench.machine import matrix_gflops, peak_mib, reset_peak

log = logging.getLogger(__name__)

TableLine = dict[str, Any]
"""One line of a result table: ``name`` and numbers by column."""


@dataclass(frozen=True)
class Turn:
    """What one contestant did in one turn."""

    seconds: float
    sentences: int
    """Sentences the user gave, repeated ones included."""
    tokens: int
    """Tokens that were run, without padding."""
    cells: int
    """Tokens that were run, padding included."""
    operations: float = 0.0
    """Floating-point operations of the matrix products that the tokens need."""
    pairs: int | None = None
    """Sentence pairs, where training is measured."""
    between: float | None = None
    """Seconds from the end of a step to the next: making its batch, and the training loop."""


@dataclass(frozen=True)
class Contestant:
    """A name, its precision and what it does in a turn."""

    name: str
    precision: str
    run: Callable[[], Turn]


def compete(
    contestants: list[Contestant], *, turns: int, device: torch.device, clock: str
) -> list[TableLine]:
    """Let the contestants run one after the other, again and again; the first round is warm-up.

    Returns:
        A line each with the medians over turns. ``matrix_share`` compares with the rate of plain
        matrix products that was measured in the same turn, in the same precision.
    """
    lines: dict[str, list[TableLine]] = {contestant.name: [] for contestant in contestants}
    for number in range(turns + 1):
        precisions = sorted({c.precision for c in contestants})
        rates = {x: matrix_gflops(x, device, clock) for x in precisions}
        for contestant in contestants:
            gc.collect()
            reset_peak(device)
            turn = contestant.run()
            line = _numbers(turn, rates[contestant.precision]) | {"peak_mib": peak_mib(device)}
            log.info(
                "%s %s: %.1f sentences/s",
                f"turn {number}" if number else "warm-up",
                contestant.name,
                line["sentences_per_s"],
            )
            if number:
                lines[contestant.name].append(line)
    return [
        {"name": c.name, "precision": c.precision, "turns": turns} | _medians(lines[c.name])
        for c in contestants
    ]


def _numbers(turn: Turn, rate: float) -> TableLine:
    """Rates of one turn."""
    line: TableLine = {} if turn.pairs is None else {"pairs_per_s": turn.pairs / turn.seconds}
    if turn.between is not None:
        line["between"] = turn.between / turn.seconds
    gflops = turn.operations / turn.seconds / 1e9
    return line | {
        "sentences_per_s": turn.sentences / turn.seconds,
        "tokens_per_s": turn.tokens / turn.seconds,
        "padding": 1 - turn.tokens / turn.cells,
        "gflops": gflops,
        "matrix_gflops": rate,
        "matrix_share": gflops / rate,
    }


def _medians(lines: list[TableLine]) -> TableLine:
    return {key: median(line[key] for line in lines) for key in lines[0]}


def against(lines: list[TableLine], name: str, key: str) -> list[TableLine]:
    """Add ``ratio``: how many times the line ``name`` each line reaches in ``key``."""
    base = next(line[key] for line in lines if line["name"] == name)
    return [line | {"ratio": line[key] / base} for line in lines]
