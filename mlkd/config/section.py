"""What all schemas share: blocks of settings, common types, and what a setting decides."""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import Enum
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from mlkd.config.paths import expanded, no_folder


def _delimiter(written: object) -> object:
    """A tab is hard to write on a command line."""
    return "\t" if written in ("tab", "\\t") else written


def _several(given: object) -> object:
    if isinstance(given, bool):
        raise ValueError(f"{given} is no valid list; YAML reads no, on and off as such: quote them")
    return [given] if isinstance(given, str | float | int) else given


def matching(pattern: str, words: str) -> AfterValidator:
    """A check of a text whose refusal says in words what is allowed."""

    def check(given: str) -> str:
        if not re.fullmatch(pattern, given):
            raise ValueError(f"{given!r} is not allowed; allowed: {words}")
        return given

    return AfterValidator(check)


T = TypeVar("T")
Several = Annotated[list[T], BeforeValidator(_several)]
"""A list; a single value needs no brackets."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Folder = Annotated[str, AfterValidator(expanded)]
"""A folder, or a file; ``~`` is the home folder."""
NewFile = Annotated[Folder, AfterValidator(no_folder)]
"""A file to write, known to be none of the folders that are there before hours of work."""
Delimiter = Annotated[str, BeforeValidator(_delimiter), Field(min_length=1, max_length=1)]
"""What separates cells of a file; ``tab`` for a tab."""


class Decides(Enum):
    """What a setting decides, as a mark at its field; without a mark it decides what is trained.

    Names of runs, keys of sweeps, comparisons in reports and the command that a report shows all
    read these marks.
    """

    NOTHING = "nothing"
    """Where and how fast something runs, what is shown or kept beside the result."""
    CHAIN = "chain"
    """Which links a chain has, how they follow each other, and with which seeds: what a link is
    made from, but no setting of its training."""
    SCORES = "scores"
    """The scores of a run, not its training."""
    PAIRS = "pairs"
    """Which pairs there are, and so what is trained; where they are known their content counts."""
    LABELS = "labels"
    """What is trained, where a link trains on labelled text."""
    MIXING = "mixing"
    """What is trained, where a link has mixed batches."""
    DOMAINS = "domains"
    """What is trained, where a link reads the domains of the pairs."""


class Section(BaseModel):
    """A block of the configuration: unknown keys are refused, values are not changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    version: ClassVar[int] = 0
    """Counts the changes of the code behind a section that change what is trained."""

    def deciding(self, also: Collection[Decides] = ()) -> dict[str, Any]:
        """The settings that decide what is trained, JSON-able, with the versions of their code.

        Args:
            also: Marks of settings that count as well.
        """
        found: dict[str, Any] = {"version": self.version} if self.version else {}
        for name, field in type(self).model_fields.items():
            marks = {mark for mark in field.metadata if isinstance(mark, Decides)}
            if marks <= set(also):
                found[name] = _deciding(getattr(self, name), also)
        return found


def _deciding(value: Any, also: Collection[Decides]) -> Any:
    """The same for whatever a field holds."""
    if isinstance(value, Section):
        return value.deciding(also)
    if isinstance(value, dict):
        return {key: _deciding(item, also) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_deciding(item, also) for item in value]
    return value


def undecided(schema: type[Section], also: Collection[Decides] = ()) -> set[str]:
    """Dotted keys of a schema whose mark says that they do not decide what is trained.

    Below free names, as those of corpora, the key has an asterisk.
    """
    found = set()
    for name, field in schema.model_fields.items():
        marks = {mark for mark in field.metadata if isinstance(mark, Decides)}
        if not marks <= set(also):
            found.add(name)
            continue
        for kind, prefix in _sections(field.annotation, name):
            found |= {f"{prefix}.{key}" for key in undecided(kind, also)}
    return found


def is_below(key: str, known: Collection[str]) -> bool:
    """Whether a dotted key, or what it is a part of, is among keys of :func:`undecided`."""
    parts = key.split(".")
    beginnings = [parts[:end] for end in range(1, len(parts) + 1)]
    return any(_fits(beginning, name.split(".")) for beginning in beginnings for name in known)


def _fits(parts: list[str], pattern: list[str]) -> bool:
    return len(parts) == len(pattern) and all(
        p in ("*", part) for part, p in zip(parts, pattern, strict=True)
    )


def schemas_in(annotation: Any) -> list[type[Section]]:
    """Schemas that a field of this type may hold."""
    return [schema for schema, _ in _sections(annotation, "")]


def _sections(annotation: Any, name: str) -> list[tuple[type[Section], str]]:
    """The same, each with its place."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [(annotation, name)]
    inner = f"{name}.*" if get_origin(annotation) is dict else name
    return [found for kind in get_args(annotation) for found in _sections(kind, inner)]
