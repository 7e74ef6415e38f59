"""Case: preparation of synthetic pairs, each size in a process of its own."""

from __future__ import annotations

import logging
import multiprocessing
import random
from multiprocessing.connection import Connection
from pathlib import Path

from mlkd.bench.contest import TableLine
from mlkd.bench.machine import AnonymousPeak, clock_seconds, scratch
from mlkd.config.bench import BenchmarkConfig
from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.storage.process import resident_mib

log = logging.getLogger(__name__)

_WORDS = 20_000
"""Distinct words of each language."""


def measure(config: BenchmarkConfig) -> list[TableLine]:
    """Rate and peak memory of ``prepare_pairs`` for each number of pairs."""
    return [_prepare(number, config) for number in config.benchmark.synthetic]


def _prepare(number: int, config: BenchmarkConfig) -> TableLine:
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's memory
    with scratch(config.output_dir) as folder:
        write_pairs(folder / "pairs.tsv", number)
        ours, theirs = context.Pipe()
        child = context.Process(
            target=_child, args=(folder, config.benchmark.clock == "cpu", theirs)
        )
        child.start()
        theirs.close()
        taken, peak, anonymous = ours.recv()
        child.join()
    log.info("%d pairs: %.0f pairs/s", number, number / taken)
    return {
        "name": f"{number:,} pairs",
        "seconds": taken,
        "pairs_per_s": number / taken,
        "peak_mib": peak,
        "anonymous_mib": anonymous,
    }


def _child(folder: Path, cpu: bool, pipe: Connection) -> None:
    """Prepare the pairs of a folder and send seconds and peak memory."""
    from mlkd.data.pairs import prepare_pairs

    corpus = CorpusConfig(format="tsv", path="pairs.tsv", targets=["de"])
    data = DataConfig(root=str(folder), corpora={"synthetic": corpus})
    clock = "cpu" if cpu else "wall"
    start = clock_seconds(clock)
    with AnonymousPeak() as peak:
        prepare_pairs(data, [], folder / "cache")
    pipe.send((clock_seconds(clock) - start, resident_mib("VmHWM"), peak.mib))
    pipe.close()


def write_pairs(path: Path, number: int) -> None:
    """Write pairs of random words, 8 to 16 a side; every tenth English sentence comes up again."""
    draw = random.Random(0)
    english = [_word(draw, "aeiou") for _ in range(_WORDS)]
    german = [_word(draw, "aeiouäöü") for _ in range(_WORDS)]
    with path.open("w", encoding="utf-8") as file:
        source = ""
        for index in range(number):
            if index % 10 or not index:
                source = " ".join(draw.choices(english, k=draw.randint(8, 16)))
            translation = " ".join(draw.choices(german, k=draw.randint(8, 16)))
            file.write(f"{source.capitalize()}.\t{translation.capitalize()}.\n")


def _word(draw: random.Random, vowels: str) -> str:
    return "".join(
        draw.choice("bdfghklmnprstvwz") + draw.choice(vowels) for _ in range(draw.randint(1, 4))
    )
