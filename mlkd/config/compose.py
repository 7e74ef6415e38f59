"""The door: composes ``conf/``, validates it before torch is imported, reports errors in a line."""

from __future__ import annotations

import difflib
import importlib.util
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from mlkd.config.inputs import EncoderConfig
from mlkd.config.quoting import how_to_quote
from mlkd.config.schema import TrainConfig
from mlkd.output.errors import Interrupted, UserError
from mlkd.output.secrets import guard_output

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKAGED = _PACKAGE / "conf"
CONF_DIR = _PACKAGED if _PACKAGED.is_dir() else _PACKAGE.with_name("conf")
"""The configuration tree: a wheel brings it inside the package, in a checkout it lies beside it."""

Config = TypeVar("Config", bound=BaseModel)

# Hydra 1.3 copies its whole store for each group that it lists or composes, about 130 times for
# --help and half of its time. The store is a singleton and its load() hands out copies anyway.
setattr(ConfigStore, "__deepcopy__", lambda store, memo: store)  # noqa: B010


def run(name: str, schema: type[Config], main: Callable[[Config], Any]) -> None:
    """Compose ``conf/<name>.yaml`` with the command line and call ``main`` with the valid result.

    Wrong input ends the process with one line and status 2, an interruption with 130 or 143.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's own report
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

    @hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=name)
    def job(composed: DictConfig) -> Any:
        guard_output()
        with reporting(schema):  # here too, because Hydra would add a line of its own
            return main(validate(composed, schema))

    with reporting(schema):
        job()


@contextmanager
def reporting(schema: type[BaseModel]) -> Iterator[None]:
    """End the process with one line where there is nothing to show a traceback for.

    Wrong input and files that cannot be read or written have status 2, an interruption 130 or 143.
    """
    stopped = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except UserError as error:
        _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_one_line(error, schema))
    except ValueError as error:
        if not str(error).startswith("Only one of --"):  # Hydra's answer to -m with --cfg
            raise
        _fail(str(error))
    except OSError as error:  # a folder that cannot be read or written, a full disk
        reason = error.strerror or str(error)
        _fail(f"{error.filename}: {reason}" if error.filename is not None else reason)
    except (KeyboardInterrupt, Interrupted) as error:
        reason = str(error) or "SIGINT"
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
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key}: a value is needed; give {error.full_key}=…") from None
    assert isinstance(values, dict)
    if values.pop("sweep", None):
        raise UserError("sweep: a sweep is many runs; start it with -m")
    try:
        config = schema.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(explain(e, schema) for e in error.errors()[:3])) from None
    if isinstance(config, TrainConfig):
        check_backbone(config)
    return config


def check_backbone(config: TrainConfig) -> None:
    """Compare the student's size with the backbone, as far as local files tell.

    Raises:
        UserError: Too many layers, too wide a bottleneck, or teacher and assistant differ in width.
    """
    teacher = _backbone(config.teacher)
    backbone = _backbone(config.assistant.encoder) if config.assistant.encoder else teacher
    if backbone is None:
        return
    width, depth = backbone["hidden_size"], backbone["num_hidden_layers"]
    neurons, asked = backbone.get("intermediate_size"), config.student.intermediate
    if teacher is not None and teacher["hidden_size"] != width:
        raise UserError(
            f"teacher (width {teacher['hidden_size']}) and assistant (width {width}): "
            "they must have the same width"
        )
    if config.student.layers > depth:
        raise UserError(
            f"student.layers={config.student.layers}: the backbone has {depth} layers; "
            f"allowed: 1 to {depth}"
        )
    if config.student.bottleneck is not None and config.student.bottleneck >= width:
        raise UserError(
            f"student.bottleneck={config.student.bottleneck}: the backbone is {width} wide; "
            f"allowed: 1 to {width - 1}, or null"
        )
    if asked is not None and neurons is not None and asked > neurons:
        raise UserError(
            f"student.intermediate={asked}: the backbone's layers have {neurons}; "
            f"allowed: 1 to {neurons}, or null"
        )


def encoder_folder(config: EncoderConfig) -> Path | None:
    """Local folder of an encoder; None for a hub model.

    Raises:
        UserError: The package is not installed or the folder does not exist.
    """
    if config.package is not None:
        try:
            spec = importlib.util.find_spec(config.package)
        except (ImportError, ValueError):  # of a package around it, or a name that is none
            spec = None
        if spec is None or spec.origin is None:
            raise UserError(f"package {config.package} is not installed; pip install it")
        return Path(spec.origin).parent / "model"
    if config.path is not None:
        folder = Path(config.path).expanduser()
        if not (folder / "modules.json").is_file():
            raise UserError(f"{folder}: no sentence-transformers folder (it has no modules.json)")
        return folder
    return None


def _backbone(config: EncoderConfig) -> dict[str, int] | None:
    """Sizes of a local encoder, from its ``config.json``; None where it does not tell."""
    folder = encoder_folder(config)
    if folder is None or not (folder / "config.json").is_file():
        return None
    if (folder / "mlkd_config.json").is_file():  # its layers may run several times
        return None
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        sizes = {key: int(content[key]) for key in ("hidden_size", "num_hidden_layers")}
        if "intermediate_size" in content:
            sizes["intermediate_size"] = int(content["intermediate_size"])
        return sizes
    except KeyError:
        return None
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{folder / 'config.json'}: not the configuration of an encoder") from None


def explain(error: Any, schema: type[BaseModel]) -> str:
    """One pydantic error in words: key, value, what is allowed."""
    path = [str(part) for part in error["loc"]]
    key, message = ".".join(path), error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{key}: no such key{_suggestion(key, schema)}"
    if error["type"] == "value_error":
        return f"{key}: {message}" if key else message
    value = error["input"]
    shown = "" if isinstance(value, dict | list) else f"={value}"
    return f"{key}{shown}: {message[0].lower()}{message[1:]}"


def _suggestion(key: str, schema: type[BaseModel]) -> str:
    """The known keys closest to a wrong one."""
    known = sorted(_keys(schema, key.split(".")))
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _keys(schema: type[BaseModel], path: Sequence[str], prefix: str = "") -> set[str]:
    """All dotted keys of a schema; names that are free to choose are those of ``path``."""
    found: set[str] = set()
    for name, field in schema.model_fields.items():
        found.add(prefix + name)
        places = [f"{prefix}{name}."]
        if get_origin(field.annotation) is dict:
            named = get_args(get_args(field.annotation)[0])  # of a Literal; a str has none
            chosen = named or (path[1:2] if path[:1] == [name] else [])
            found |= {f"{prefix}{name}.{key}" for key in chosen}
            places = [f"{prefix}{name}.{key}." for key in chosen]
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                for place in places:
                    rest = path[place.removeprefix(prefix).count(".") :]
                    found |= _keys(kind, rest, place)
    return found


def _one_line(error: Exception, schema: type[BaseModel]) -> str:
    """Hydra's message without line breaks, with a suggestion for an unknown key."""
    if isinstance(error, OverrideParseException):
        return how_to_quote(error.override)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and "full_key" in str(cause):
        key = str(cause).split("full_key:")[1].split()[0]
        if key in _keys(schema, key.split(".")):  # legal, but in no file that was composed
            return f"{key}: not set so far; put a plus before it, as in +{key}=…"
        return f"{key}: no such key{_suggestion(key, schema)}"
    if lines and lines[0].startswith("In '"):
        lines = lines[1:]
    return " ".join(line for line in lines if not line.startswith("Config search path"))[:400]


def _terminate(number: int, frame: Any) -> None:
    raise Interrupted("SIGTERM")


def _fail(message: str) -> NoReturn:
    logging.shutdown()
    print(f"error: {UserError(message)}", file=sys.stderr)  # one line, without secrets
    sys.exit(2)
