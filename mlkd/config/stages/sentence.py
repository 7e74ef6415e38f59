"""Settings of the stage that compares sentence vectors."""

from __future__ import annotations

from typing import ClassVar, Literal

from mlkd.config.losses import LossConfig
from mlkd.config.stages.base import StageSettings


class SentenceSettings(StageSettings):
    """Sentence vectors aim at those of a frozen encoder."""

    implementation: ClassVar[str] = "mlkd.stages.sentence:SentenceStage"
    version: ClassVar[int] = 1

    stage: Literal["sentence"]
    translation_target: Literal["source", "translation"] = "source"
    """Whose vector the translation side aims at: the source sentence's, or its own."""
    loss: LossConfig

    def unread(self, passes: int) -> dict[str, str]:
        """The target of translations, where no term compares a vector with its target."""
        reason = "loss has no pair_mse"
        return {} if self.loss.pair_mse is not None else {"translation_target": reason}
