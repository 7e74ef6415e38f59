"""Schemas of the benchmark and of the baselines; like :mod:`mlkd.config.schema`, free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlkd.config.schema import TrainConfig
from mlkd.config.section import NewFile, Positive, Section, Several

CaseName = Literal[
    "minilm", "multilingual", "vocabulary", "bottleneck", "targets", "busy", "chain", "pairs",
    "start", "profile",
]  # fmt: skip


@dataclass(frozen=True)
class ReadBy:
    """The cases that read a setting, as a mark at its field; without a mark all do."""

    cases: tuple[CaseName, ...]


_CONTESTS: tuple[CaseName, ...] = ("minilm", "multilingual", "vocabulary", "bottleneck")


class CasesConfig(Section):
    """What is measured, and how long."""

    cases: Several[CaseName] = Field(min_length=1)
    steps: Annotated[Positive, ReadBy((*_CONTESTS, "profile"))]
    """Optimiser steps a turn."""
    batch_size: Annotated[Positive, ReadBy((*_CONTESTS, "profile"))]
    """Pairs a step."""
    turns: Annotated[Positive, ReadBy((*_CONTESTS, "targets", "busy"))]
    """Turns of each contestant that count, after one that does not."""
    clock: Annotated[Literal["wall", "cpu"], ReadBy((*_CONTESTS, "targets", "pairs"))]
    """``cpu`` counts the CPU time a thread: for a machine that has other work to do as well."""
    rows: Annotated[int, Field(ge=40_000), ReadBy(("vocabulary", "bottleneck"))]
    """Rows of the large vocabulary."""
    synthetic: Annotated[Several[Positive], Field(min_length=1), ReadBy(("pairs",))]
    """Numbers of synthetic pairs whose preparation is measured."""
    start_pairs: Annotated[Positive, ReadBy(("start",))]
    """Synthetic pairs whose training is started."""
    sentences: Annotated[Positive, ReadBy(("targets", "busy"))]
    """Sentences whose targets are computed."""
    output: NewFile
    """JSON file to write."""

    def unread(self, keys: Iterable[str]) -> Iterator[str]:
        """Say which settings none of the cases reads.

        Args:
            keys: Names of settings of this section, and of what is in them.
        """
        for key in keys:
            field = type(self).model_fields[key.partition(".")[0]]
            for mark in field.metadata:
                if isinstance(mark, ReadBy) and not {*mark.cases} & {*self.cases}:
                    yield f"{key}: not read, benchmark.cases has none of {', '.join(mark.cases)}"


class BenchmarkConfig(TrainConfig):
    """The whole of ``python -m mlkd.benchmark``: a training and what to measure of it."""

    benchmark: CasesConfig

    @model_validator(mode="after")
    def _of_one_student(self) -> BenchmarkConfig:
        _refuse_search(self)
        return self


class BaselinesConfig(TrainConfig):
    """The whole of ``python -m mlkd.baselines``: a chain, and where its rivals' numbers go."""

    output: NewFile | None = None
    """JSON file to write; null = ``baselines-<id of the chain's last run>.json`` in ``output_dir``.
    The same as CSV and the tables in Markdown go beside it."""

    @model_validator(mode="after")
    def _is_a_fair_contest(self) -> BaselinesConfig:
        if self.output is not None and self.output.endswith((".csv", ".md")):
            raise ValueError(f"output={self.output}: a JSON file; .csv and .md go beside it")
        if self.eval.precision != "fp32":
            raise ValueError("eval.precision: what is compared is scored in fp32")
        if self.trainer.processes > 1:
            raise ValueError("trainer.devices and trainer.nodes: allowed here: 1")
        _refuse_search(self)
        return self


def _refuse_search(config: TrainConfig) -> None:
    if config.budget_mib is not None:
        raise ValueError("budget_mib: mlkd.train searches; give the student that it finds")
