"""Schemas of what is read: parallel pairs and encoders."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mlkd.config.labelled import Column, Domain, DomainColumn, LabelledConfig, filled
from mlkd.config.languages import Language, fill_languages, refuse_unfilled
from mlkd.config.section import (
    Decides,
    Delimiter,
    Folder,
    Fraction,
    Positive,
    Section,
    Several,
    matching,
)

_ALIGNED = {"path", "codes", "columns"}
_TABLE = _ALIGNED | {"domain_column"}
_TRANSLATION = {"path", "codes"}
_TWO_TRANSLATIONS = {"path", "target_path", "codes"}
_KEYS = {
    "demo": set[str](),
    "tsv": _TABLE | {"header"},
    "csv": _TABLE | {"header", "delimiter"},
    "aligned": _ALIGNED | {"target_path", "header"},
    "moses": {"path", "codes"},
    "text": _TABLE | {"header"},
    "jsonl": _TABLE,
    "json": _TABLE,
    "parquet": _TABLE,
    "dataset": _TABLE | {"split", "subset", "revision"},
    "gettext": _TRANSLATION,
    "tmx": _TRANSLATION,
    "xliff": _TRANSLATION,
    "qt": _TRANSLATION,
    "xcstrings": _TRANSLATION,
    "android": _TWO_TRANSLATIONS,
    "properties": _TWO_TRANSLATIONS,
    "strings": _TWO_TRANSLATIONS,
    "fluent": _TWO_TRANSLATIONS,
}
"""The keys that each format reads, besides those that say what a corpus is."""
_HOLDERS = re.compile(r"\{\w+\}")
_NAMED = {"jsonl", "json", "parquet", "dataset"}
"""Formats whose columns have names only."""
_SAYS_LANGUAGE = {"demo", "moses", "gettext", "tmx", "xliff", "qt", "xcstrings"}
"""Formats whose files say which languages they hold, or whose names do."""


class CorpusConfig(Section):
    """One parallel corpus, possibly with several translation languages."""

    format: Literal[
        "demo", "tsv", "csv", "aligned", "moses", "text", "jsonl", "json", "parquet", "dataset",
        "gettext", "tmx", "xliff", "qt", "xcstrings", "android", "properties", "strings", "fluent",
    ]  # fmt: skip
    """What ``mlkd/data/README.md`` shows for each: ``aligned`` zips the lines of two files,
    ``dataset`` is a hub id or a saved dataset, ``text`` has no translations."""
    path: str = ""
    """File, folder or hub id under ``data.root``; ``{source}``, ``{target}`` are filled in, and
    ``{pair}``, the two in alphabetical order (OPUS: ``de-en``, ``en-fr``)."""
    target_path: str | None = None
    """The translations, in formats with a file a language."""
    source: Language = "en"
    targets: Several[Language] = Field(min_length=1)
    """Translation languages that the corpus offers."""
    codes: dict[Language, str] = Field(default={})
    """How paths and names of columns write a language, where that is not its code, as
    ``{pt-BR: pt_br}``."""
    columns: Several[Column] | None = None
    """Columns of the source and the translation: positions, or names where the file has a header
    (JSONL, Parquet and datasets always have names). ``{source}``, ``{target}`` are filled in. For
    ``aligned``: the text columns read from both files, each giving a pair a row. null = the first
    two, of ``text`` the first, of ``aligned`` files of plain text the one that there is."""
    header: bool | None = None
    """Whether the first line names the columns. null = no, and a line that looks as if it did is
    refused."""
    delimiter: Delimiter = ","
    """What separates the cells of ``csv``; ``tab`` for a tab."""
    domain: Domain = "general"
    """What the text is about, or where it comes from: a label for links that read it. ``{source}``,
    ``{target}``, ``{format}`` are filled in."""
    domain_column: DomainColumn = None
    """Column of the domain, as in ``columns``; a row without a value in it is of ``domain``."""
    split: str = "train"
    """Split of a ``dataset``."""
    subset: str | None = None
    """Subset (configuration) of a ``dataset``; ``{source}``, ``{target}`` are filled in."""
    revision: str | None = None
    """Revision of a hub dataset."""
    max_pairs: Positive | None = None
    """At most so many clean pairs a translation language, taken from the start of the file."""

    def fill(self, text: str, target: str) -> str:
        """Put the languages into the placeholders of a path or a name."""
        return fill_languages(text, {"source": self.source, "target": target}, self.codes)

    def label(self, target: str) -> str:
        """``domain``, filled in for a translation language."""
        return filled(self.domain, {"source": self.source, "target": target, "format": self.format})

    def source_of(self, target: str) -> str:
        """Language of the source side: that of the target where the sides are one sentence."""
        return target if self.format == "text" else self.source

    @model_validator(mode="after")
    def _every_key_is_read(self) -> CorpusConfig:
        for key in sorted(set().union(*_KEYS.values())):
            value = getattr(self, key)
            is_set = value is not False and value != type(self).model_fields[key].default
            if is_set and key not in _KEYS[self.format]:
                allowed = ", ".join(sorted(name for name, keys in _KEYS.items() if key in keys))
                raise ValueError(
                    f"{key} is not read in the format {self.format}, but in: {allowed}"
                )
        if self.format == "demo" and self.domain != type(self).model_fields["domain"].default:
            raise ValueError("domain is not read in the format demo, which has topics of its own")
        return self

    @model_validator(mode="after")
    def _placeholders_are_known(self) -> CorpusConfig:
        self.label(self.targets[0])
        for key in ("path", "target_path", "subset"):
            refuse_unfilled(key, getattr(self, key) or "", ["source", "target", "pair"])
        if self.format in _NAMED and isinstance(self.domain_column, int):
            raise ValueError(
                f"domain_column={self.domain_column}: columns of {self.format} have names"
            )
        return self

    @model_validator(mode="after")
    def _targets_differ(self) -> CorpusConfig:
        if self.source in self.targets and self.format == "demo":
            raise ValueError(f"targets: {self.source} is the source; give other languages")
        columns = [column for column in self.columns or [] if isinstance(column, str)]
        places = " ".join([self.path, self.target_path or "", self.subset or "", *columns])
        several = len(set(self.targets)) > 1 and self.format not in _SAYS_LANGUAGE
        if several and self.path and not {"{target}", "{pair}"} & set(_HOLDERS.findall(places)):
            raise ValueError(
                f"{', '.join(self.targets)} would all be read from the same text; put "
                "{target} or {pair} into path"
            )
        return self


class DataConfig(Section):
    """Parallel pairs: where they come from, how they are cleaned, split and mixed."""

    version: ClassVar[int] = 2
    """Of batches, tokens and target vectors."""

    root: Annotated[Folder | None, Decides.PAIRS] = None
    """Folder that relative corpus paths start from."""
    corpora: Annotated[dict[str, CorpusConfig], Field(min_length=1), Decides.PAIRS]
    labelled: Annotated[dict[str, LabelledConfig], Decides.LABELS] = Field(default={})
    """Labelled text, for links whose stage trains on it; pairs and other links do not depend on
    it."""
    languages: Annotated[
        Annotated[Several[Language], Field(min_length=1)] | None, Decides.PAIRS
    ] = None
    """Translation languages to use; null = all that the corpora offer."""
    max_chars: Annotated[Positive, Decides.PAIRS] = 250
    """Pairs with a longer side are rejected."""
    max_tokens: Annotated[int, Field(ge=4, le=512)] = 128
    """Longer sentences are cut, for every encoder alike (tokens, special ones included)."""
    max_rejected: Annotated[Fraction, Decides.PAIRS] = 0.05
    """Share of bad rows of a corpus above which the run stops."""
    dev_fraction: Annotated[float, Field(gt=0.0, le=0.5), Decides.PAIRS] = 0.02
    """Share of the source sentences, chosen by hash, that is held out as dev."""
    max_dev_pairs: Positive = 2000
    """At most so many dev pairs are used to select."""
    mixing: Annotated[Literal["proportional", "uniform", "temperature"], Decides.MIXING] = "uniform"
    """How (corpus, language) groups share a batch: by size, equally (Ding et al., 2022), or by
    size to the power of ``1 / temperature``."""
    temperature: Annotated[float, Field(ge=1.0), Decides.MIXING] = 1.0
    """Used by ``mixing: temperature``; 1 = proportional, larger = more even."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0), Decides.PAIRS] = 1.0
    """Share of the training pairs that is used, by hash of the source side."""

    @property
    def reads_files(self) -> bool:
        """Whether there is text that is not embedded."""
        kinds = {x.format for x in self.corpora.values()}
        return not {*kinds, *(x.format for x in self.labelled.values())} <= {"demo"}

    @model_validator(mode="after")
    def _temperature_is_used(self) -> DataConfig:
        if self.temperature != 1.0 and self.mixing != "temperature":
            raise ValueError(f"temperature={self.temperature} needs mixing=temperature")
        return self


class EncoderConfig(Section):
    """A sentence encoder: a packaged model, a local folder, or a hub model at a revision."""

    package: str | None = None
    """Installed Python package that holds a sentence-transformers folder ``model/``."""
    path: str | None = None
    """Local sentence-transformers folder."""
    name: str | None = None
    """Hub name; needs a ``revision``."""
    revision: str | None = None
    sha256: Annotated[str, matching("[0-9a-f]{64}", "64 digits from 0 to f")] | None = None
    """Expected SHA-256 of ``model.safetensors``; checked before use."""
    prompt: str | None = None
    """Put before each sentence, as ``query: ``; null = the encoder's default prompt, which most do
    not have, "" = none. Students learn to do without it."""
    prompt_name: str | None = None
    """The same by its name among the prompts of the encoder."""

    @model_validator(mode="after")
    def _one_place(self) -> EncoderConfig:
        if sum(place is not None for place in (self.package, self.path, self.name)) != 1:
            raise ValueError("give exactly one of package, path and name")
        if self.name is not None and self.revision is None:
            raise ValueError(f"name={self.name} needs a revision")
        if self.name is None and self.revision is not None:
            raise ValueError(f"revision={self.revision} is only read with a name")
        if self.prompt is not None and self.prompt_name is not None:
            raise ValueError("give at most one of prompt and prompt_name")
        return self
