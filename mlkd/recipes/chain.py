"""What the links of one chain share: configuration, pairs, encoders, results."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from mlkd.config.schema import TrainConfig
from mlkd.config.student import InitConfig, StudentConfig
from mlkd.data.store import PairStore
from mlkd.machine import ranks
from mlkd.metrics.evaluation import Evaluation
from mlkd.metrics.sets import first_pairs
from mlkd.metrics.size import folder_mib
from mlkd.recipes.early import refuse_domains
from mlkd.recipes.identity import link_keys
from mlkd.recipes.inputs import prepare
from mlkd.recipes.recipe import STUDENT, Given, Link, Made, New, links, references
from mlkd.runs.record import Run
from mlkd.storage.files import encoder_fingerprint
from mlkd.storage.lock import Lock
from mlkd.student.start import new_student
from mlkd.training.reads import FrozenFolder, Reads

_STARTED = time.monotonic()
"""When the process began, nearly: ``trainer.max_hours`` is for all chains that it runs."""


@dataclass
class Chain:
    """What the links of one chain share."""

    config: TrainConfig
    pairs: PairStore
    labelled: Mapping[str, PairStore]
    """By link, where it trains on labelled text instead of pairs."""
    evaluation: Evaluation
    given: Mapping[str, Path]
    """Folders of the encoders that are there before the first link."""
    keys: dict[str | None, str]
    """What leads to each link (see :func:`link_keys`), as it was before a file was read."""
    coverage: dict[str, Any]
    """What the assistant's vocabulary makes of each language."""
    deadline: float | None = None
    """``time.monotonic()`` at which the process saves and stops."""
    runs: dict[str, Run] = field(default_factory=dict)
    """Of the links that have run, by name."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Each model of the result table,"""
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    """and its numbers."""

    @property
    def cache(self) -> Path:
        """Folder of recomputable files."""
        return Path(self.config.output_dir, "cache")

    @property
    def teacher(self) -> Path:
        """Folder of the encoder whose space is imitated."""
        return self.given["teacher"]

    @property
    def assistant(self) -> Path:
        """Folder of the multilingual encoder that results are compared with."""
        return self.folder(references(self.config)["assistant"])

    def folder(self, source: Given | Made) -> Path:
        """Folder of an encoder, or of another output of a link that has run."""
        if isinstance(source, Given):
            return self.given[source.name]
        return self.runs[source.link].output(source.output)

    def reads(self, link: Link) -> Reads:
        """What a link reads, as far as its inputs are there."""
        encoders = {
            role: FrozenFolder(self._label(source), self.folder(source))
            for role, source in link.inputs.items()
            if isinstance(source, Given) or (isinstance(source, Made) and source.link in self.runs)
        }
        config = self.config
        return Reads(
            link.name,
            link.settings,
            link.seed,
            encoders,
            config.data,
            config.trainer,
            self.rows(link),
            self.cache,
        )

    def rows(self, link: Link) -> PairStore:
        """What a link trains on."""
        return self.labelled.get(link.name, self.pairs)

    def new_student(
        self, start: New, size: StudentConfig | None = None, init: InitConfig | None = None
    ) -> SentenceTransformer:
        """A student before any training, as the configuration says where nothing else is given."""
        config = self.config
        return new_student(
            self.folder(start.source),
            size or config.student,
            init or config.init,
            config.seed,
            config.data.max_tokens,
            self.pairs,
            self.cache,
        )

    def _label(self, source: Given | Made) -> str:
        """What progress bars call an encoder."""
        for name, reference in references(self.config).items():
            if source == reference:
                return name
        return source.name if isinstance(source, Given) else source.link

    def lock(self, run: Run) -> Lock:
        """For whoever works on a run or writes its record."""
        return Lock(run.folder.with_name(f".{run.id}.lock"), waiting_for=run.id)

    def measure(
        self, name: str, folder: Path, head: Path | None = None, diff: Path | None = None
    ) -> dict[str, Any]:
        """Numbers of an encoder, from the cache where they are known; the first process's work.

        Args:
            name: What tables call it.
            folder: The encoder.
            head: Its head for classifications, if it has one.
            diff: The sparse difference that made it, if one did.
        """
        if not ranks.is_first():
            return {}
        self.folders[name] = folder
        self.measured[name] = self.evaluation.cached(folder, self.cache, name, head)
        if diff is not None:
            self.measured[name] = self.measured[name] | {"diff_mib": folder_mib(diff)}
        return self.measured[name]

    def measure_references(self) -> None:
        """Measure what results are compared with, as far as it is there before the first link."""
        for name, source in references(self.config).items():
            if isinstance(source, Given):
                self.measure(name, self.folder(source))


class ByContent:
    """Encoders and pairs are what is in their files (see :mod:`mlkd.recipes.identity`)."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def given(self, encoder: Given) -> str:
        """Hash of its files."""
        return encoder_fingerprint(self._chain.folder(encoder))

    def made(self, output: Made) -> str:
        """Id of the run, whose name says what decides it."""
        run = self._chain.runs[output.link].id
        return run if output.output == STUDENT else f"{run}.{output.output}"

    def pairs(self, link: Link) -> Any:
        """Hash of their content."""
        rows = self._chain.rows(link)
        if link.settings.reads_domains:
            return [rows.fingerprint, rows.domain_hash]
        return rows.fingerprint


def open_chain(config: TrainConfig) -> Chain:
    """Prepare data and the encoders that are there before the first link."""
    limit = config.trainer.max_hours
    deadline = None if limit is None else _STARTED + 3600 * limit
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    keys = link_keys(config)
    ready = prepare(config)
    for link in links(config):
        if link.name in ready.labelled:
            refuse_domains(config, link, ready.labelled[link.name].domains)
    evaluation = Evaluation(
        first_pairs(ready.sets, config.eval.max_pairs),
        bootstrap=config.eval.bootstrap,
        max_tokens=config.data.max_tokens,
        teacher=ready.teacher,
        accelerator=config.trainer.accelerator,
        precision=config.eval.precision,
    )
    given = {"teacher": ready.teacher, "base": ready.base}
    if ready.source is not None:
        given["source"] = ready.source
    rows = ready.pairs, ready.labelled
    return Chain(config, *rows, evaluation, given, keys, ready.coverage, deadline)
