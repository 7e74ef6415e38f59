"""Settings of the stage that trains the embedding layer alone."""

from __future__ import annotations

from typing import ClassVar, Literal

from mlkd.config.losses import LossConfig
from mlkd.config.stages.base import StageSettings
from mlkd.config.student import StudentConfig


class EmbeddingSettings(StageSettings):
    """The embedding layer imitates that of a frozen encoder."""

    implementation: ClassVar[str] = "mlkd.stages.embedding:EmbeddingStage"
    version: ClassVar[int] = 1
    whole: ClassVar[bool] = False

    stage: Literal["embedding"]
    loss: LossConfig

    def useless(self, student: StudentConfig) -> str | None:
        """A word table that was copied whole has nothing to learn."""
        whole = student.bottleneck is None and student.codes is None
        return "a student.bottleneck or student.codes" if whole else None
