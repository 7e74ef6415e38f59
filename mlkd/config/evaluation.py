"""Schemas of evaluation sets."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mlkd.config.labelled import Label
from mlkd.config.languages import Language, pair_code
from mlkd.config.section import Decides, Folder, Section, Several

LanguagePair = Annotated[str, BeforeValidator(pair_code)]
"""Two codes, as ``en-de``, ``en-pt-BR``."""


class EvalSetConfig(Section):
    """One evaluation set; ``split`` says whether it may select."""

    kind: Literal["sts", "bitext", "classification"]
    """``classification``: texts with labels, of models that have a head for them."""
    split: Literal["dev", "test"]
    format: Literal["demo", "tsv"] = "tsv"
    path: str = ""
    """TSV under ``eval.root``. ``{lang}``: one file a language, row i the same item in each;
    ``{a}``, ``{b}``, or ``{pair}`` for the two in alphabetical order: one file a language pair;
    bitext files with ``{lang}`` hold ``source`` and that language, with one column only that."""
    source: Language = "en"
    """The language that others are paired with."""
    languages: Several[Language] = Field(default=[])
    """Languages of a set with one file a language (bitext: besides ``source``)."""
    pairs: Several[LanguagePair] | None = None
    """Language pairs to score; null = each language with itself (STS) and with ``source``."""
    codes: dict[Language, str] = Field(default={})
    """How paths write a language, where that is not its code, as ``{de: deu}``."""
    columns: tuple[int, int, int] | tuple[int, int] | tuple[int] | None = None
    """Positions of the two sentences (and the score), of the text and its label, or of the one
    sentence of bitext with a file a language; null = the first ones."""
    header: bool = False
    max_score: Annotated[float, Field(gt=0.0)] = 5.0
    """Largest legal gold score."""
    labels: list[Label] = Field(default=[])
    """Of a classification, in any order; heads with the same ones are scored."""
    domain: str | None = None
    """Of the texts of a classification: models that have a head for this domain are scored with
    it; null = with the one for all."""
    where: dict[Annotated[int, Field(ge=0)], Label] = Field(default={})
    """Columns by position and what stands in the rows that are the set, as ``{0: news}``."""

    @model_validator(mode="after")
    def _every_key_is_read(self) -> EvalSetConfig:
        files = ["path", "columns", "header", "codes", "where"]
        unread = files if self.format == "demo" else []
        unread += ["max_score"] if self.kind != "sts" else []
        unread += ["labels", "domain"] if self.kind != "classification" else ["pairs"]
        kinds = {"max_score": "sts", "pairs": "sts and bitext"}
        kinds |= dict.fromkeys(("labels", "domain"), "classification")
        for key in unread:
            if getattr(self, key) != type(self).model_fields[key].default:
                what = f"sets of kind {kinds[key]}" if key in kinds else "files"
                raise ValueError(f"{key} is only read of {what}")
        if self.where and (self.columns is None or self.where.keys() & set(self.columns)):
            raise ValueError("where needs columns, those of the text, and is about others")
        if self.kind == "classification" and not 1 < len(set(self.labels)) == len(self.labels):
            raise ValueError(f"labels={self.labels}: give two different ones or more")
        return self

    def deciding(self, also: Collection[Decides] = ()) -> dict[str, Any]:
        """Without ``where`` if there is none: runs from before it are found as before."""
        found = super().deciding(also)
        return found if self.where else {k: v for k, v in found.items() if k != "where"}


class EvalConfig(Section):
    """Evaluation sets and the numbers around the scores."""

    root: Folder | None = None
    sets: dict[str, EvalSetConfig] = Field(min_length=1)
    bootstrap: Annotated[int, Field(ge=0)] = 1000
    """Resamples of the 95 % interval; 0 = none."""
    max_pairs: Annotated[int, Field(ge=2)] | None = None
    """Pairs of each set and language pair that encoders are scored on, the first ones; null = all.
    Scores of a few pairs only show that everything works. No pair of a set is trained on anyway."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """What encoders are scored in; ``auto`` as in the trainer. Sizes and times are fp32's."""

    @property
    def reads_files(self) -> bool:
        """Whether there is a set that is not embedded."""
        return any(item.format != "demo" for item in self.sets.values())
