"""Settings of the stage that trains few entries of an encoder."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mlkd.config.losses import LossConfig
from mlkd.config.stages.base import StageSettings


class SparseSettings(StageSettings):
    """Sentence vectors aim at those of a frozen encoder, by few entries of the weights."""

    implementation: ClassVar[str] = "mlkd.stages.sparse:SparseStage"
    version: ClassVar[int] = 1
    roles: ClassVar[frozenset[str]] = frozenset({"start", "moved", "target"})
    outputs: ClassVar[frozenset[str]] = frozenset({"student", "diff"})

    stage: Literal["sparse"]
    density: Annotated[float, Field(gt=0.0, le=1.0)] = 0.08
    """Share of the entries that are trained: those that ``moved`` moved furthest from ``start``."""
    freeze_layernorm: bool = False
    """Whether no entry of a LayerNorm is trained or counted."""
    translation_target: Literal["source", "translation"] = "source"
    """Whose vector the translation side aims at: the source sentence's, or its own."""
    loss: LossConfig

    @model_validator(mode="after")
    def _nothing_decays(self) -> SparseSettings:
        if self.optim.weight_decay:
            raise ValueError(
                f"optim.weight_decay={self.optim.weight_decay} would change entries that are not "
                "trained; allowed: 0"
            )
        return self
