"""Case: a MiniLM assistant with its own vocabulary and one translation language."""

from __future__ import annotations

from mlkd.bench.contest import TableLine
from mlkd.bench.training import contest, open_for_training, with_languages
from mlkd.config.bench import BenchmarkConfig


def measure(config: BenchmarkConfig) -> list[TableLine]:
    """English and German (or the first language that the data offers)."""
    chain = open_for_training(with_languages(config, 1, "de"))
    return contest(config, chain, chain.given["base"])
