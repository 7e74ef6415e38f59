"""The door: composes ``conf/``, validates it before torch is imported, reports errors in a line."""

from __future__ import annotations

import difflib
import importlib.util
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from mlkd.errors import Interrupted, UserError
from mlkd.inputs import EncoderConfig
from mlkd.schema import TrainConfig
from mlkd.secrets import guard_output

CONF_DIR = Path(__file__).resolve().parent.parent / "conf"
"""The configuration tree; mlkd is an editable install, so it lies beside the package."""

Config = TypeVar("Config", bound=BaseModel)


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


def encoder_folder(config: EncoderConfig) -> Path | None:
    """Local folder of an encoder; None for a hub model.

    Raises:
        UserError: The package is not installed or the folder does not exist.
    """
    if config.package is not None:
        spec = importlib.util.find_spec(config.package)
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
    """``config.json`` of a local encoder."""
    folder = encoder_folder(config)
    if folder is None or not (folder / "config.json").is_file():
        return None
    content: dict[str, int] = json.loads((folder / "config.json").read_text())
    return content if {"hidden_size", "num_hidden_layers"} <= content.keys() else None


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
    close = difflib.get_close_matches(key, sorted(_keys(schema)), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _keys(schema: type[BaseModel], prefix: str = "") -> set[str]:
    """All dotted keys of a schema."""
    found: set[str] = set()
    for name, field in schema.model_fields.items():
        found.add(prefix + name)
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= _keys(kind, f"{prefix}{name}.")
    return found


def _one_line(error: Exception, schema: type[BaseModel]) -> str:
    """Hydra's message without line breaks, with a suggestion for an unknown key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and "full_key" in str(cause):
        key = str(cause).split("full_key:")[1].split()[0]
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
