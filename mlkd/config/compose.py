"""The door: composes ``conf/``, validates it before torch is imported, reports errors in a line."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, NoReturn, TypeVar

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from mlkd.config.backbone import check_backbone
from mlkd.config.defaults import stored_defaults
from mlkd.config.explain import explained, one_line
from mlkd.config.quoting import quoted
from mlkd.config.resolvers import resolving
from mlkd.config.schema import TrainConfig
from mlkd.config.trees import compose_tree, keeping, quick_hydra
from mlkd.output.errors import Interrupted, UserError
from mlkd.output.process import own_process
from mlkd.output.started import is_first_here

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKAGED = _PACKAGE / "conf"
CONF_DIR = _PACKAGED if _PACKAGED.is_dir() else _PACKAGE.with_name("conf")
"""The configuration tree: a wheel brings it inside the package, in a checkout it lies beside it."""

Config = TypeVar("Config", bound=BaseModel)
_OF_SWEEPS = re.compile(r"-m$|--mu|hydra[./](launcher|sweep|sweeper)\b")
_OF_SWEEPERS = re.compile(r"hydra[./]sweep(er)?\b")
_TURN = threading.RLock()
_REPLACED = {"teacher", "encoder", "corpora", "sets"}
"""Sections that values replace as a whole."""


def run(name: str, schema: type[Config], main: Callable[[Config], Any]) -> None:
    """Compose ``conf/<name>.yaml`` with the command line and call ``main`` with the valid result.

    Wrong input ends the process with one line and status 2, an interruption with 130 or 143.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's own report

    @hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=name)
    def job(composed: DictConfig) -> Any:
        own_process()
        with reporting(schema):  # here too, because Hydra would add a line of its own
            return main(validate(composed, schema))

    with reporting(schema), stored_defaults(), resolving(), quick_hydra():
        _refuse_sweep(name, sys.argv[1:])
        job()


def _refuse_sweep(name: str, words: Sequence[str]) -> None:
    """Refuse what only the sweeps of ``mlkd.train -m`` read, which do not come here.

    Raises:
        UserError: It is among the words of a command line.
    """
    for word in words:
        key, given, _ = word.lstrip("+~").partition("=")
        if given and key in ("hydra", "hydra.mode"):
            raise UserError(f"{key}: -m starts a sweep, nothing else does")
        if name == "train" and _OF_SWEEPERS.match(key):
            raise UserError(f"{key}: not read, mlkd plans its sweeps itself")
        if name != "train" and _OF_SWEEPS.match(key):
            raise UserError(f"{key}: mlkd.{name} runs once; python -m mlkd.train -m sweeps")


def configured(
    name: str,
    schema: type[Config],
    overrides: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Config:
    """Compose ``conf/<name>.yaml`` without a command line.

    Args:
        name: The command that the configuration is of.
        schema: What it is validated against.
        overrides: In Hydra's grammar, as after ``python -m mlkd.<name>``.
        settings: Sections by name: an option of ``conf/``, or values. Values of a section go into
            the one that was composed; encoders, corpora and sets take the place of it.

    Raises:
        UserError: There is no such option or key, a value is out of range, or a combination
            impossible.
    """
    given = dict(settings or {})
    options = {k: v for k, v in given.items() if isinstance(v, str) and (CONF_DIR / k).is_dir()}
    with composing(), _in_words(schema):
        lines = [f"{key}={quoted(value)}" for key, value in options.items()]
        composed = compose_tree(name, [*overrides, *lines])
        with open_dict(composed):
            for key in given.keys() - options:
                _fill(composed, key, given[key])
        return validate(composed, schema)


def _fill(tree: DictConfig, key: str, value: Any) -> None:
    """Put a value into a composed tree; what refers to other keys goes on doing so."""
    if isinstance(value, BaseModel):
        tree[key] = value.model_dump(mode="json")
    elif isinstance(value, Mapping) and key not in _REPLACED and tree.get(key) is not None:
        if OmegaConf.is_interpolation(tree, key):  # a copy of another section
            tree[key] = OmegaConf.to_container(tree[key], resolve=True)
        for inner, item in value.items():
            _fill(tree[key], inner, item)
    else:
        tree[key] = _plain(value)


def _plain(value: Any) -> Any:
    """Paths as texts, and mappings and sequences as OmegaConf has them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


@contextmanager
def composing() -> Iterator[None]:
    """Open ``conf/`` for Hydra's ``compose`` and :func:`mlkd.config.trees.compose_tree`.

    A program around it finds its own Hydra again. Hydra knows one composition at a time, so that
    threads take turns.
    """
    with _TURN:
        yield from _composing()


def _composing() -> Iterator[None]:
    instances: Any = Singleton._instances
    kinds = (GlobalHydra, JobRuntime, VersionBase)
    before = {kind: instances.pop(kind) for kind in kinds if kind in instances}
    try:
        with (
            stored_defaults(),
            resolving(),
            quick_hydra(),
            keeping(),
            initialize_config_dir(str(CONF_DIR), version_base="1.3"),
        ):
            yield
    finally:
        for kind in kinds:
            instances.pop(kind, None)
        instances.update(before)


def compose_option(group: str, name: str) -> dict[str, Any]:
    """What an option of a group sets, of those groups whose options need no others."""
    with composing():
        values = OmegaConf.to_container(compose_tree("train", [f"{group}={name}"])[group])
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def compose_recipe(name: str) -> dict[str, Any]:
    """``recipe``, ``stage`` and ``stages`` of a recipe as it comes."""
    with composing():
        values = OmegaConf.to_container(compose_tree("train", [f"recipe={name}"]), resolve=True)
    assert isinstance(values, dict)
    return {key: values[key] for key in ("recipe", "stage", "stages")}


@contextmanager
def _in_words(schema: type[BaseModel]) -> Iterator[None]:
    """Say in a line what Hydra refuses."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error, schema)) from error
    except ValueError as error:
        if not str(error).startswith("Config group override must be"):
            raise
        raise UserError("null: no option of a group; leave the group out or name one") from error


@contextmanager
def reporting(schema: type[BaseModel]) -> Iterator[None]:
    """End the process with one line where there is nothing to show a traceback for.

    Wrong input and files that cannot be read or written have status 2, an interruption 130 or 143.
    Of the processes that train together on a machine the first one speaks.
    """
    quiet = schema is TrainConfig and not is_first_here()
    stopped = signal.signal(signal.SIGTERM, _terminate)
    try:
        with _in_words(schema):
            yield
    except UserError as error:
        _fail(str(error), quiet)
    except ValueError as error:
        if not str(error).startswith("Only one of --"):  # Hydra's answer to -m with --cfg
            raise
        _fail(str(error), quiet)
    except OSError as error:  # a folder that cannot be read or written, a full disk
        reason = error.strerror or str(error)
        _fail(f"{error.filename}: {reason}" if error.filename is not None else reason, quiet)
    except (KeyboardInterrupt, Interrupted) as error:
        reason = str(error) or "SIGINT"
        if not quiet:
            print(f"interrupted ({reason}); the same command goes on from here", file=sys.stderr)
        sys.exit(130 if reason == "SIGINT" else 143)
    finally:
        signal.signal(signal.SIGTERM, stopped)


def validate(composed: DictConfig, schema: type[Config]) -> Config:
    """Turn a composed tree into its schema.

    Raises:
        UserError: A key is unknown, a value out of range, or a combination impossible.
    """
    try:
        with resolving():
            values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: a value is needed; give {error.full_key}=…") from None
    assert isinstance(values, dict)
    if values.pop("sweep", None):
        raise UserError("sweep: a sweep is many runs; start it with -m")
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        raise UserError(explained(error, schema, values)) from None
    if isinstance(config, TrainConfig):
        check_backbone(config)
    return config


def _terminate(number: int, frame: Any) -> None:
    raise Interrupted("SIGTERM")


def _fail(message: str, quiet: bool) -> NoReturn:
    logging.shutdown()
    if not quiet:
        print(f"error: {UserError(message)}", file=sys.stderr)  # one line, without secrets
    sys.exit(2)
