"""Compositions in less time: Hydra without its detours, and trees that are kept."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose
from hydra._internal import defaults_list
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from mlkd.config.stages import known_stages

_kept: dict[Any, DictConfig] | None = None
"""Trees by what decides them, while :func:`keeping` is open."""


@contextmanager
def quick_hydra() -> Iterator[None]:
    """Let Hydra read its store without copies, and compose no more than it needs.

    Hydra 1.3 copies the whole store for each group that it lists or composes, about 130 times for
    --help and half of its time. The store is a singleton and its load() hands out copies anyway.
    For each file it turns all choices so far into a configuration, a third of what is left of its
    time, although only entries of a list of defaults that refer to other choices read it. A
    command composes twice, the first time for ``hydra.mode`` alone, which no file here sets.
    """
    collect, mode = defaults_list._create_interpolation_map, Hydra.get_mode

    def collect_if_read(overrides: Any, entries: Any, self_added: bool) -> DictConfig:
        if any(entry.is_interpolation() for entry in entries):
            return collect(overrides, entries, self_added)
        return OmegaConf.create()

    def mode_if_given(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        given = any("hydra" in override for override in overrides)
        return mode(hydra, config_name, overrides) if given else None

    before = vars(ConfigStore).get("__deepcopy__")
    setattr(ConfigStore, "__deepcopy__", lambda store, memo: store)  # noqa: B010
    setattr(defaults_list, "_create_interpolation_map", collect_if_read)  # noqa: B010
    setattr(Hydra, "get_mode", mode_if_given)  # noqa: B010
    try:
        yield
    finally:
        setattr(defaults_list, "_create_interpolation_map", collect)  # noqa: B010
        setattr(Hydra, "get_mode", mode)  # noqa: B010
        if before is None:
            delattr(ConfigStore, "__deepcopy__")
        else:
            setattr(ConfigStore, "__deepcopy__", before)  # noqa: B010


@contextmanager
def keeping() -> Iterator[None]:
    """Let :func:`compose_tree` keep what it composes; it reads no file of ``conf/`` twice then."""
    global _kept
    before, _kept = _kept, {} if _kept is None else _kept
    try:
        yield
    finally:
        _kept = before


def compose_tree(name: str, overrides: Sequence[str]) -> DictConfig:
    """What ``hydra.compose`` gives, without Hydra's own section; needs an initialised Hydra.

    Putting the options of groups together takes nearly all of its time, and depends on them alone:
    while :func:`keeping` is open that is done once, and values go into a copy.

    Raises:
        HydraException: There is no such option or key.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    loader: Any = GlobalHydra.instance().config_loader()
    values = [o for o in parsed if not _is_option(o, loader.repository)]
    if _kept is None or any(_is_hydras(o) for o in parsed):
        return compose(name, list(overrides))
    options = [str(o.input_line) for o in parsed if o not in values]
    sources = tuple(source.path for source in loader.repository.get_sources())
    key = (name, *options, sources, tuple(known_stages().values()))
    if key not in _kept:
        _kept[key] = compose(name, options)
    tree = copy.deepcopy(_kept[key])
    loader._apply_overrides_to_config(values, tree)
    return tree


def _is_option(override: Override, repository: Any) -> bool:
    """Whether it chooses an option of a group, as Hydra tells them from values."""
    is_value = isinstance(override.value(), dict)
    return not is_value and repository.group_exists(override.key_or_group)


def _is_hydras(override: Override) -> bool:
    """Whether Hydra itself has to look at it: a setting of its own, or several values."""
    return override.is_hydra_override() or override.is_sweep_override()
