"""The cells of a sweep: which settings they combine, which of them are possible."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import ValidationError

from mlkd.config.compose import validate
from mlkd.config.explain import explained
from mlkd.config.schema import TrainConfig
from mlkd.config.section import Section
from mlkd.config.sweeps import Launcher, LocalConfig, SlurmConfig, SweepConfig, Value
from mlkd.config.trees import compose_tree
from mlkd.output.errors import UserError
from mlkd.output.label import label, text
from mlkd.recipes.early import refuse_unread_by_all
from mlkd.recipes.identity import link_keys

T = TypeVar("T", bound=Section)

_LAUNCHERS: dict[str, type[LocalConfig] | type[SlurmConfig] | None] = {
    "basic": None,
    "local": LocalConfig,
    "slurm": SlurmConfig,
}
"""Options of ``hydra/launcher`` and their schemas. mlkd reads them; Hydra itself starts no cell."""


@dataclass(frozen=True)
class Cell:
    """One combination of settings: a chain up to ``config.stage``."""

    overrides: dict[str, str]
    """What sets this cell apart, as on the command line."""
    config: TrainConfig
    links: tuple[tuple[str | None, str], ...]
    """Its links and what decides each (see :func:`mlkd.recipes.identity.link_keys`); before them
    what all of them share, without a name."""

    @property
    def id(self) -> str:
        """Names the cell's files; the same settings have the same id."""
        return self.links[-1][1][:8]


@dataclass(frozen=True)
class Request:
    """A command line of a sweep, taken apart."""

    fixed: tuple[str, ...]
    """Overrides of every cell."""
    sweep: SweepConfig
    launcher: Launcher


def read_request(overrides: Sequence[str]) -> Request:
    """Take the command line of a sweep apart; needs an initialised Hydra.

    Args:
        overrides: As on the command line, without ``-m``.

    Raises:
        UserError: The sweep or its launcher has wrong settings, or nothing is swept.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        key = override.get_key_element().lstrip("+~")
        value = "" if override.is_delete() else override.get_value_string().strip("'\"")
        if key == "hydra/launcher" and value not in _LAUNCHERS:
            raise UserError(f"{override.input_line}: allowed: {', '.join(_LAUNCHERS)}")
        if re.match(r"hydra(?:$|[./](mode|sweep|sweeper)\b)", key):
            raise UserError(
                f"{override.input_line}: mlkd plans its sweeps itself; of hydra's own settings -m "
                "reads hydra/launcher and hydra.launcher.*"
            )
    swept: dict[str, list[Value]] = {
        o.get_key_element(): list(o.sweep_string_iterator())
        for o in parsed
        if o.is_sweep_override()
    }
    single = {
        o.get_key_element(): str(o.input_line)
        for o in parsed
        if not o.is_sweep_override() and o.get_key_element() not in swept
    }
    composed = compose("train", list(single.values()), return_hydra_config=True)
    settings: Any = (
        OmegaConf.to_container(composed.sweep) if "sweep" in composed else {"name": "grid"}
    )
    # What the sweep varies: a grid's values, or the space that a search draws from.
    holder, field = (settings["optuna"], "space") if settings.get("optuna") else (settings, "grid")
    kept = {k: v for k, v in holder.get(field, {}).items() if k not in single}
    holder[field] = kept | swept
    if not holder[field]:
        raise UserError("-m sweeps nothing: give sweep=<name>, or several values as key=a,b")
    own = ("hydra/launcher=", "hydra.launcher.")
    fixed = tuple(line for line in single.values() if not line.lstrip("+~").startswith(own))
    keys = [override.get_key_element().lstrip("+~") for override in parsed]
    return Request(fixed, _check(SweepConfig, settings, "sweep"), _launcher(composed, keys))


def combinations(grid: dict[str, list[Value]]) -> Iterable[dict[str, Value]]:
    """All combinations of a grid's values, the last setting varying fastest."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def make_cell(fixed: Sequence[str], values: dict[str, Any]) -> Cell:
    """Compose and validate one cell; needs an initialised Hydra.

    Raises:
        UserError: The combination is impossible.
    """
    overrides = {key: text(value) for key, value in values.items()}
    lines = [*fixed, *(f"{key}={value}" for key, value in overrides.items())]
    composed = compose_tree("train", lines)
    with open_dict(composed):
        composed.pop("sweep", None)
    config = validate(composed, TrainConfig)
    if config.budget_mib is not None:
        raise UserError(
            "budget_mib: not in a sweep; give several sizes as a list, budget_mib=[8,5]"
        )
    return Cell(overrides, config, tuple(link_keys(config).items()))


def make_cells(request: Request) -> tuple[list[Cell], dict[str, str]]:
    """The possible cells of a grid, and the others with a word why not.

    Raises:
        UserError: No cell is possible, or none reads a setting that all of them have.
    """
    cells: dict[str, Cell] = {}
    impossible: dict[str, str] = {}
    for values in combinations(request.sweep.grid):
        named = label(values)
        try:
            cell = make_cell(request.fixed, values)
        except UserError as error:
            impossible[named] = str(error)
            continue
        if cell.id in cells:
            impossible[named] = f"the same as {' '.join(cells[cell.id].overrides.values())}"
        else:
            cells[cell.id] = cell
    if not cells:
        raise UserError(f"no cell is possible; the first one: {next(iter(impossible.values()))}")
    refuse_unread_by_all([cell.config for cell in cells.values()], request.fixed)
    return list(cells.values()), impossible


def _launcher(composed: DictConfig, keys: list[str]) -> Launcher:
    """The launcher that ``hydra/launcher`` names.

    Args:
        composed: With Hydra's own configuration.
        keys: What the command line sets.

    Raises:
        UserError: It has wrong settings, or none that are read.
    """
    settings = OmegaConf.to_container(composed.hydra.launcher, resolve=True)
    name = composed.hydra.runtime.choices["hydra/launcher"]
    kind = _LAUNCHERS[name]
    if kind is None:
        unread = [key for key in keys if key.startswith("hydra.launcher.")]
        if unread:
            raise UserError(f"{unread[0]}: not read; give hydra/launcher=local or slurm")
        return None
    checked: LocalConfig | SlurmConfig = _check(kind, settings, "hydra.launcher")
    return checked


def _check(schema: type[T], settings: Any, prefix: str) -> T:
    """Validate a section that is not part of the training configuration."""
    try:
        return schema.model_validate(settings)
    except ValidationError as error:
        raise UserError(explained(error, schema, settings, f"{prefix}.")) from None
