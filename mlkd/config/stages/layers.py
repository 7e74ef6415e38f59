"""Settings of the stage that compares the layers of two encoders."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mlkd.config.losses import PairMSEConfig, TermConfig
from mlkd.config.section import Section
from mlkd.config.stages.base import StageSettings


class HiddenConfig(TermConfig):
    """Weight of the mean squared error of token states: embedding output and every layer."""

    version: ClassVar[int] = 1


class AttentionConfig(TermConfig):
    """Weight of the mean squared error of attention probabilities in every layer."""

    version: ClassVar[int] = 1


class LayerTermsConfig(Section):
    """Terms of the loss, each logged by its name; null = left out."""

    hidden: HiddenConfig | None = HiddenConfig()
    attention: AttentionConfig | None = AttentionConfig()


class LayerLossConfig(LayerTermsConfig):
    """The same with sentence vectors."""

    pair_mse: PairMSEConfig | None = None
    """Sentence vectors as well; each side of a pair aims at its own."""

    @model_validator(mode="after")
    def _some_layers(self) -> Self:
        if self.hidden is None and self.attention is None:
            raise ValueError("give at least one of hidden, attention")
        return self


class MaskingConfig(Section):
    """Masked input, the same for student and target (Ansell et al., 2023)."""

    version: ClassVar[int] = 1

    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Share of the tokens that are chosen. Of these 80 % become the mask token, 10 % another piece
    of the text, and 10 % stay."""


class LayerwiseSettings(StageSettings):
    """What stages share that compare the layers of two encoders."""

    map: Literal["first", "stride", "last", "ends"]
    """Which layer of the target each layer aims at: a rule of ``init.layers``, in ``conf/`` the
    one by which the student was copied. With recurrence pass n of N aims at layer n L / N of L,
    whatever the rule."""
    loss: LayerLossConfig = LayerLossConfig()

    def unread(self, passes: int) -> dict[str, str]:
        """The map, where layers run several times."""
        if passes == 1:
            return {}
        return {"map": "pass n of N aims at layer n L / N of L where student.recurrence is above 1"}


class LayersSettings(LayerwiseSettings):
    """Token states and attention of every layer aim at those of a frozen encoder."""

    implementation: ClassVar[str] = "mlkd.stages.layers:LayersStage"
    version: ClassVar[int] = 1

    stage: Literal["layers"]
    masking: MaskingConfig | None = None
    """null = encoders read the text as it is."""

    @model_validator(mode="after")
    def _whole_sentences_have_vectors(self) -> LayersSettings:
        if self.masking is not None and self.loss.pair_mse is not None:
            raise ValueError("masking and loss.pair_mse exclude each other: its targets read all")
        return self
