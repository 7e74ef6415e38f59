"""``sweep=optuna``: draw cells that promise high quality at few bytes."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from hydra import compose
from omegaconf import DictConfig, open_dict
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from mlkd.config.compose import validate
from mlkd.config.paths import user_path
from mlkd.config.schema import TrainConfig
from mlkd.config.sweeps import OptunaConfig, RangeConfig, Value
from mlkd.output.errors import UserError
from mlkd.output.label import label
from mlkd.recipes.early import refuse_unread_by_all
from mlkd.recipes.identity import link_keys
from mlkd.runs.index import finished_runs
from mlkd.storage.files import digest
from mlkd.storage.lock import Lock
from mlkd.sweeps.driver import run_cells
from mlkd.sweeps.grid import Cell, Request, make_cell
from mlkd.sweeps.record import SweepRecord

log = logging.getLogger(__name__)

_SAMPLE = 16
"""Cells that are looked at before any is drawn."""
_MOST_USELESS = 100
"""So many draws in a row that give no new cell end a search."""


def search(request: Request, command: str) -> SweepRecord:
    """Draw and run cells until there are as many as asked for.

    Quality is the selecting dev score, bytes the size of the student on disk. All draws are kept
    beside the sweep's record: the same command runs cells without a result again, and one with more
    trials draws on. Needs an initialised Hydra.

    Raises:
        UserError: No possible cell was drawn, none reads a setting that all of them have, or the
            file of the draws is damaged.
    """
    settings = request.sweep.optuna
    assert settings is not None
    _refuse_unread(request.fixed, settings)
    composed = compose("train", list(request.fixed))
    output_dir = user_path(composed.output_dir)
    own = sorted(line for line in request.fixed if not line.startswith("sweep"))
    # With other data, sets or encoders it is another search, as its scores would not compare.
    common = _common_key(composed)
    identity = digest([own, common, settings.model_dump(include={"space", "seed"})], length=8)
    record = SweepRecord(output_dir / "multirun" / f"{request.sweep.name}-{identity}")
    with Lock(record.folder / ".search.lock", waiting_for="the same search"):
        draws = _Draws(request, settings, record.folder)
        batch = draws.unfinished()
        while True:
            wanted = min(settings.parallel - len(batch), settings.trials - len(draws.cells))
            batch |= draws.draw(max(0, wanted))
            if not batch:
                break
            cells = list(draws.cells.values())
            chosen = {cell.id for cell in batch.values()}
            run_cells(record, request, cells, draws.impossible, command, only=chosen)
            draws.enter(batch, output_dir)
            batch = {}
    if len(draws.cells) < settings.trials:
        log.info(
            "sweep.optuna.space: %d draws in a row gave no cell besides these %d",
            _MOST_USELESS,
            len(draws.cells),
        )
    draws.say_front()
    return record


def _refuse_unread(fixed: Sequence[str], settings: OptunaConfig) -> None:
    """Refuse a setting that no cell reads, as far as a sample of the space tells.

    Raises:
        UserError: None of some cells reads it, nor one that has another value than the first.
    """
    if not fixed:
        return
    values: dict[str, list[Value]] = {}
    for key, choice in settings.space.items():
        if isinstance(choice, RangeConfig):
            kind = int if choice.whole else float
            values[key] = [kind(choice.low), kind(choice.high)]
        else:
            values[key] = choice
    draw = random.Random(settings.seed)
    drawn = [{key: draw.choice(known) for key, known in values.items()} for _ in range(_SAMPLE)]
    changed = [{**drawn[0], key: value} for key, known in values.items() for value in known]
    refuse_unread_by_all(_possible(fixed, [*drawn, *changed]), fixed)


def _possible(fixed: Sequence[str], several: Sequence[dict[str, Value]]) -> Iterator[TrainConfig]:
    """Configurations of those cells that are possible, composed when they are asked for."""
    for values in several:
        with suppress(UserError):
            yield make_cell(fixed, values).config


def _common_key(composed: DictConfig) -> str | None:
    """What all cells share (see :func:`link_keys`); None where only the draws make it possible."""
    with open_dict(composed):
        composed.pop("sweep", None)
    try:
        return link_keys(validate(composed, TrainConfig))[None]
    except UserError:
        return None


class _Draws:
    """Optuna's study of a search.

    A trial that runs is a cell without a result yet, a failed trial a draw that gave no new cell.
    """

    def __init__(self, request: Request, settings: OptunaConfig, folder: Path) -> None:
        self.cells: dict[int, Cell] = {}
        """All cells by the number of their trial."""
        self.impossible: dict[str, str] = {}
        """Draws that are no cell, and why."""
        self._fixed, self._ranges = request.fixed, settings.space
        self._space = {key: _distribution(choice) for key, choice in settings.space.items()}
        self._possible: dict[str, Cell] = {}
        self._study = _open(folder)
        for trial in self._study.get_trials(deepcopy=False):
            cell = self._cell(trial.params)
            if trial.state != TrialState.FAIL and cell is not None:
                self.cells[trial.number] = cell
            elif trial.state == TrialState.RUNNING:  # killed in the middle of a draw
                self._study.tell(trial.number, state=TrialState.FAIL)
        drawn = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = optuna.samplers.TPESampler(
            seed=settings.seed + drawn, constant_liar=True
        )

    def unfinished(self) -> dict[int, Cell]:
        """Cells of earlier calls that failed, or were still running when the call ended."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {trial.number: self.cells[trial.number] for trial in running}

    def draw(self, wanted: int) -> dict[int, Cell]:
        """New cells, fewer than wanted if the space has no more."""
        new: dict[int, Cell] = {}
        useless = 0
        while len(new) < wanted and useless < _MOST_USELESS:
            trial = self._study.ask(self._space)
            cell = self._cell(trial.params)
            if cell is None or cell.id in {known.id for known in self.cells.values()}:
                self._study.tell(trial, state=TrialState.FAIL)
                useless += 1
            else:
                self.cells[trial.number] = new[trial.number] = cell
                useless = 0
        if not self.cells and wanted:
            raise UserError(
                f"sweep.optuna.space: no possible cell in {_MOST_USELESS} draws; the first one: "
                + next(iter(self.impossible.values()))
            )
        return new

    def enter(self, batch: Mapping[int, Cell], output_dir: Path) -> None:
        """Tell the sampler what came of cells; one without a result goes on in the next call."""
        known = finished_runs(output_dir)
        for number, cell in batch.items():
            run = known.get(cell.links[-1][1])
            if run is not None and run.score is not None and run.mib is not None:
                self._study.tell(number, [run.score, run.mib])

    def say_front(self) -> None:
        """Log the cells that no other one beats in both quality and size."""
        for trial in sorted(self._study.best_trials, key=lambda trial: trial.values[1]):
            if trial.number in self.cells:
                named = label(self.cells[trial.number].overrides)
                log.info("front: dev %.1f, %.2f MiB: %s", *trial.values, named)

    def _cell(self, params: Mapping[str, Any]) -> Cell | None:
        """The cell of a draw; None if it is impossible or not complete."""
        if set(params) != set(self._space):
            return None
        values = {key: _rounded(params[key], self._ranges[key]) for key in self._space}
        named = label(values)
        if named not in self._possible and named not in self.impossible:
            try:
                self._possible[named] = make_cell(self._fixed, values)
            except UserError as error:
                self.impossible[named] = str(error)
        return self._possible.get(named)


def _open(folder: Path) -> optuna.Study:
    """The study in the multirun folder of a search."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / "optuna.journal"
    try:
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name=folder.name,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); move it away to draw anew") from None


def _distribution(choice: list[Value] | RangeConfig) -> BaseDistribution:
    """What Optuna draws from."""
    if not isinstance(choice, RangeConfig):
        return CategoricalDistribution(choice)
    if choice.whole:
        return IntDistribution(int(choice.low), int(choice.high), choice.log)
    return FloatDistribution(choice.low, choice.high, choice.log)


def _rounded(value: Any, choice: list[Value] | RangeConfig) -> Value:
    """Three digits of a drawn real number are enough."""
    return float(f"{value:.3g}") if isinstance(choice, RangeConfig) and not choice.whole else value
