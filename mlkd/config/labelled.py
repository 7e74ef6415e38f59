"""Schemas of labelled text, free of torch: graded sentence pairs, and texts with a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from mlkd.config.languages import Language, refuse_unfilled
from mlkd.config.section import Decides, Delimiter, Section, Several

Kind = Literal["similarity", "classification"]

_KEYS = {
    "demo": set[str](),
    "tsv": {"path", "dev_path", "columns", "domain_column", "header"},
    "csv": {"path", "dev_path", "columns", "domain_column", "header", "delimiter"},
    "jsonl": {"path", "dev_path", "columns", "domain_column"},
}
"""The keys that each format reads, besides those that say what a corpus is."""


@dataclass(frozen=True)
class Task:
    """What labelled text teaches."""

    kind: Kind
    labels: tuple[str, ...] = ()
    """Of a classification, in the order of the head's outputs."""


def _text(label: object) -> object:
    """YAML reads ``0`` as a number; files hold text."""
    return str(label) if isinstance(label, int) and not isinstance(label, bool) else label


def _column(given: object) -> object:
    """Positions do not count from the end, and no switch is one."""
    if isinstance(given, bool) or (isinstance(given, int) and given < 0):
        raise ValueError(f"{given} is no column; allowed: positions from 0, and names")
    return given


Label = Annotated[str, BeforeValidator(_text)]
Domain = Annotated[str, Field(min_length=1), Decides.DOMAINS]
"""A label for links that read it; what stands in braces is filled in."""
Column = Annotated[str | int, BeforeValidator(_column)]
"""A column by position, from 0, or by name."""
DomainColumn = Annotated[Column | None, Decides.DOMAINS]
"""A column whose values are domains."""


def filled(domain: str, values: Mapping[str, str]) -> str:
    """A domain with its placeholders filled in.

    Raises:
        ValueError: It has another one.
    """
    refuse_unfilled("domain", domain, values)
    for name, value in values.items():
        domain = domain.replace(f"{{{name}}}", value)
    return domain


class LabelledConfig(Section):
    """One labelled corpus in one language."""

    kind: Kind
    """``similarity``: two sentences and a score; ``classification``: a text and its label."""
    format: Literal["demo", "tsv", "csv", "jsonl"]
    """As of pairs. ``demo``: the embedded requests, of class complaint, question or thanks."""
    path: str = ""
    """File of the training split under ``data.root``; ``{language}`` is filled in."""
    dev_path: str | None = None
    """The same of the dev split; null = ``data.dev_fraction`` of the texts, chosen by hash."""
    language: Language = "en"
    columns: Several[Column] | None = None
    """Columns of the text or the two sentences, and of the label or score: positions, or names
    where the file has a header (JSONL always has names). null = the first ones."""
    header: bool | None = None
    """Whether the first line names the columns. null = no, and a line that looks as if it did is
    refused."""
    delimiter: Delimiter = ","
    """What separates the cells of ``csv``; ``tab`` for a tab."""
    labels: list[Label] = Field(default=[])
    """Labels of a classification; their order is that of the head's outputs."""
    scores: tuple[float, float] = (0.0, 5.0)
    """Least and largest score of a similarity: those of no and of full similarity."""
    domain: Domain = "general"
    """What the text is about, or where it comes from: a label for links that read it.
    ``{language}``, ``{format}`` are filled in."""
    domain_column: DomainColumn = None
    """Column of the domain, as in ``columns``; a row without a value in it is of ``domain``."""

    @property
    def width(self) -> int:
        """Columns that are read."""
        return 3 if self.kind == "similarity" else 2

    @property
    def label(self) -> str:
        """``domain``, filled in."""
        return filled(self.domain, {"language": self.language, "format": self.format})

    @property
    def task(self) -> Task:
        """What it teaches."""
        return Task(self.kind, tuple(self.labels))

    @model_validator(mode="after")
    def _every_key_is_read(self) -> LabelledConfig:
        unread = set().union(*_KEYS.values()) - _KEYS[self.format]
        unread |= {"scores" if self.kind == "classification" else "labels"}
        for key in sorted(unread):
            value = getattr(self, key)
            if value is not False and value != type(self).model_fields[key].default:
                where = f"of kind {self.kind}" if key in ("scores", "labels") else self.format
                raise ValueError(f"{key} is not read of labelled text {where}")
        if self.format != "demo" and not self.path:
            raise ValueError(f"format {self.format} needs a path")
        return self

    @model_validator(mode="after")
    def _values_are_possible(self) -> LabelledConfig:
        if self.kind == "classification" and not 1 < len(set(self.labels)) == len(self.labels):
            raise ValueError(f"labels={self.labels}: give two different ones or more")
        _ = self.label
        for key in ("path", "dev_path"):
            refuse_unfilled(key, getattr(self, key) or "", ["language"])
        if self.format == "jsonl" and isinstance(self.domain_column, int):
            raise ValueError(f"domain_column={self.domain_column}: columns of jsonl have names")
        if self.scores[0] >= self.scores[1]:
            raise ValueError(f"scores={list(self.scores)}: give the least and the largest score")
        if self.columns is not None and len(self.columns) != self.width:
            raise ValueError(f"columns={self.columns}: a {self.kind} has {self.width}")
        return self


def task_of(corpora: Mapping[str, LabelledConfig]) -> Task:
    """What some corpora teach together.

    Raises:
        ValueError: They are of two kinds, or have other labels or another order of them.
    """
    (first, one), *rest = corpora.items()
    for name, other in rest:
        if other.task != one.task:
            raise ValueError(f"{first} and {name} are no corpora of one kind with the same labels")
    return one.task
