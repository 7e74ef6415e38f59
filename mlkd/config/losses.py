"""Schemas of the loss terms."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mlkd.config.section import Section


class TermConfig(Section):
    """One term of a loss; a subclass has the version of its code."""

    weight: Annotated[float, Field(ge=0.0)] = 1.0
    """0 = the term is only logged."""


class PairMSEConfig(TermConfig):
    """Weight of the mean squared error to the targets of both sides."""

    version: ClassVar[int] = 1


class MCLConfig(TermConfig):
    """Multilingual contrastive learning on the batch's similarity matrix."""

    version: ClassVar[int] = 1

    mode: Literal["soft", "bool", "ce"] = "soft"
    """Regression to the teacher's similarities, to the identity, or cross-entropy of it."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """Similarities are divided by it (``ce`` wants about 0.05; 1 = the paper's code)."""


class LossConfig(Section):
    """Terms of a stage's loss, each logged by its name; null = left out."""

    pair_mse: PairMSEConfig | None = None
    mcl: MCLConfig | None = None

    @model_validator(mode="after")
    def _some_term(self) -> LossConfig:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self
