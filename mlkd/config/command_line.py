"""The command that leads to a configuration, found from the configuration alone."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from hydra import compose
from omegaconf import OmegaConf, open_dict
from pydantic import TypeAdapter, ValidationError

from mlkd.config.compose import CONF_DIR, composing
from mlkd.config.quoting import quoted
from mlkd.config.resolvers import resolving
from mlkd.config.schema import TrainConfig
from mlkd.config.section import Decides, is_below, undecided
from mlkd.config.trees import compose_tree

_GROUPS = ("teacher", "assistant", "student", "init", "data", "optim", "trainer", "eval")
"""Config groups whose options fill the section of the same name."""

_LEFT_OUT = undecided(TrainConfig, {*Decides} - {Decides.NOTHING})
"""Settings that change nothing about a result."""

_FREE = ("data.corpora.", "data.labelled.", "eval.sets.")
"""Below these, names are free to choose: one that a record lacks was left out."""

Tree = dict[str, Any]


def command_of(config: Tree) -> str:
    """A short ``python -m mlkd.train`` command that composes to a recorded configuration.

    Each config group gets the option that is closest to the recorded section; what still differs
    becomes an override of its own.

    Args:
        config: ``TrainConfig`` as JSON, from a run record.
    """
    usual = json.loads(_composed())["recipe"]
    recipe = config.get("recipe", usual)
    choices = [] if recipe == usual else [f"recipe={recipe}"]
    choices.append(f"stage={config['stage']}")
    default = json.loads(_composed(*choices))
    for group in _GROUPS:
        if _completed(group, default[group]) == config[group]:
            continue
        options = _options()[group]
        distance = {n: _leaves(_difference(o, config[group])) for n, o in options.items()}
        best = min(distance, key=lambda name: distance[name])  # the default one comes first
        if best != next(iter(options)):
            choices.append(f"{group}={best}")
    common = _overrides(choices, {k: v for k, v in config.items() if k != "stages"})
    links = _overrides([*choices, *common], {"stages": config["stages"]})  # they copy the others
    return shlex.join(["python", "-m", "mlkd.train", *choices, *common, *links])


def _overrides(choices: Sequence[str], config: Tree) -> list[str]:
    """What turns the composed values of some sections into recorded ones."""
    raw = json.loads(_composed(*choices))
    start = {name: _completed(name, value) for name, value in raw.items() if name in config}
    known = _keys(raw)
    lines = []
    for key, value in _difference(start, config).items():
        if is_below(key, _LEFT_OUT):
            continue
        if value is _ABSENT:
            # Elsewhere the record is older than the key, whose default did what was done then.
            if key.startswith(_FREE):
                lines.append(f"~{key}")
        else:
            lines.append(f"{'' if key in known else '++'}{key}={_written(value)}")
    return lines


_ABSENT = object()


def _difference(have: Any, want: Any, prefix: str = "") -> Tree:
    """Dotted keys and values that turn one tree into another."""
    if not (isinstance(have, dict) and isinstance(want, dict)):
        return {} if have == want else {prefix: want}
    found: Tree = {}
    for key in [*have, *(k for k in want if k not in have)]:
        path = f"{prefix}.{key}" if prefix else key
        if key not in want:
            found[path] = _ABSENT
        elif key not in have:
            found[path] = want[key]
        else:
            found |= _difference(have[key], want[key], path)
    return found


def _leaves(value: Any) -> int:
    """Settings in a tree."""
    return sum(map(_leaves, value.values())) if isinstance(value, dict) else 1


@functools.cache
def _composed(*overrides: str) -> str:
    """``conf/train.yaml`` with overrides, as JSON; missing values are ``"???"``."""
    with composing():
        tree = compose_tree("train", overrides)
        values = OmegaConf.to_container(tree, resolve=True, throw_on_missing=False)
    return json.dumps(values)


@functools.cache
def _options() -> dict[str, dict[str, Any]]:
    """Section that each option gives, by group, the default option first."""
    names = {
        group: sorted(x.stem for x in (CONF_DIR / group).glob("*.yaml") if x.stem != "base")
        for group in _GROUPS
    }
    # All of them in one composition, side by side; each is then read in its place.
    lines = [f"+{g}@options.{g}.{n}={n}" for g, found in names.items() for n in found]
    found: dict[str, dict[str, Any]] = {}
    with composing():
        tree = compose("train", lines, return_hydra_config=True)
    with open_dict(tree), resolving():
        for group in _GROUPS:
            default, usual = tree.hydra.runtime.choices[group], tree[group]
            found[group] = {}
            for name in sorted(names[group], key=lambda name: name != default):
                tree[group] = tree.options[group][name]
                section = OmegaConf.to_container(tree[group], resolve=True, throw_on_missing=False)
                found[group][name] = _completed(group, section)
            tree[group] = usual
    return found


def _completed(section: str, value: Any) -> Any:
    """A section with the defaults of its schema filled in."""
    kind: Any = TrainConfig.model_fields[section].annotation
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        return adapter.dump_python(adapter.validate_python(value), mode="json")
    except ValidationError:  # an option that needs another setting beside it
        return value


def _keys(tree: Any, prefix: str = "") -> set[str]:
    """Dotted keys of a tree, inner ones included."""
    if not isinstance(tree, dict):
        return set()
    names = {f"{prefix}{key}" for key in tree}
    return names.union(*(_keys(value, f"{prefix}{key}.") for key, value in tree.items()))


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if not isinstance(value, str):
        return json.dumps(value)
    plain = re.fullmatch(r"[A-Za-z_/][\w./@%+-]*", value)
    if plain and value.lower() not in {"null", "true", "false", "nan", "inf", "on", "off"}:
        return value
    return quoted(value)
