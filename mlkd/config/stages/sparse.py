"""Settings of the stages that train few entries of an encoder."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mlkd.config.stages.base import StageSettings
from mlkd.config.stages.sentence import SentenceSettings
from mlkd.config.stages.task import TaskSettings


class SparseKeys(StageSettings):
    """What all of them have besides the settings of the stage that they make sparse."""

    needs_start: ClassVar[bool] = True
    trained_roles: ClassVar[frozenset[str]] = frozenset({"moved"})

    density: Annotated[float, Field(gt=0.0, le=1.0)] = 0.08
    """Share of the entries that are trained: those that ``moved`` moved furthest from ``start``."""
    freeze_layernorm: bool = False
    """Whether no entry of a LayerNorm is trained or counted."""

    @model_validator(mode="after")
    def _nothing_decays(self) -> SparseKeys:
        if self.optim.weight_decay:
            raise ValueError(
                f"optim.weight_decay={self.optim.weight_decay} would change entries that are not "
                "trained; allowed: 0"
            )
        return self


class SparseSettings(SparseKeys, SentenceSettings):
    """Sentence vectors aim at those of a frozen encoder, by few entries of the weights."""

    implementation: ClassVar[str] = "mlkd.stages.sparse:SparseStage"
    version: ClassVar[int] = 1
    roles: ClassVar[frozenset[str]] = frozenset({"start", "moved", "target"})
    outputs: ClassVar[frozenset[str]] = frozenset({"student", "diff"})

    stage: Literal["sparse"]  # type: ignore[assignment]  # a stage of its own


class SparseTaskSettings(SparseKeys, TaskSettings):
    """An encoder learns a task by few entries of its weights; a head is trained as a whole."""

    implementation: ClassVar[str] = "mlkd.stages.sparse:SparseTaskStage"
    version: ClassVar[int] = 3
    roles: ClassVar[frozenset[str]] = frozenset({"start", "moved"})
    outputs: ClassVar[frozenset[str]] = frozenset({"student", "head", "diff"})

    stage: Literal["sparse_task"]  # type: ignore[assignment]  # a stage of its own
