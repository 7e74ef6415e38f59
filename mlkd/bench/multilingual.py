"""Case: three translation languages, so that English sentences come up again."""

from __future__ import annotations

from mlkd.bench.contest import TableLine
from mlkd.bench.training import contest, open_for_training, with_languages
from mlkd.config.bench import BenchmarkConfig


def measure(config: BenchmarkConfig) -> list[TableLine]:
    """English with German, French and Czech (or the first languages that the data offers)."""
    chain = open_for_training(with_languages(config, 3, "de", "fr", "cs"))
    return contest(config, chain, chain.given["base"])
