"""Settings of the stage that trains on labelled text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mlkd.config.labelled import LabelledConfig, Task, task_of
from mlkd.config.losses import TermConfig
from mlkd.config.section import Section
from mlkd.config.stages.base import LabelledSettings
from mlkd.config.stages.layers import AttentionConfig, HiddenConfig


class GoldConfig(TermConfig):
    """Weight of the labels: cross-entropy, or the squared error of the cosine to the score."""

    version: ClassVar[int] = 1


class SoftConfig(TermConfig):
    """Weight of what the target says: soft labels, or its cosine."""

    version: ClassVar[int] = 1

    temperature: Annotated[float, Field(gt=0.0)] = 2.0
    """Logits of both sides are divided by it; similarities have none."""


_USUAL = SoftConfig().temperature


class SoftLossConfig(Section):
    """What the losses of these stages share."""

    soft: SoftConfig | None = None


class TaskLossConfig(SoftLossConfig):
    """Terms of the loss, each logged by its name; null = left out."""

    gold: GoldConfig | None = GoldConfig()
    hidden: HiddenConfig | None = None
    attention: AttentionConfig | None = None

    @property
    def compares_layers(self) -> bool:
        """Whether layers aim at those of the target."""
        return self.hidden is not None or self.attention is not None

    @model_validator(mode="after")
    def _some_label(self) -> TaskLossConfig:
        if self.gold is None and self.soft is None:
            raise ValueError("give at least one of gold, soft")
        return self


class HeadSettings(LabelledSettings):
    """What links share that have a head where they classify, and may have soft labels."""

    loss: SoftLossConfig
    head_rate: Annotated[float, Field(gt=0.0)] = 10.0
    """Learning rate of the head of a classification, in parts of the link's."""

    def handed_over(self, known: Mapping[str, LabelledConfig]) -> frozenset[str]:
        """Similarities have no head."""
        classifies = task_of(self._named(known)).kind == "classification"
        return self.outputs if classifies else self.outputs - {"head"}

    def lacks(self, task: Task) -> str | None:
        """Soft labels need the target's head; similarities have no head."""
        classifies, soft = task.kind == "classification", self.loss.soft is not None
        if classifies and soft and "target_head" not in self.inputs:
            return "loss.soft needs inputs.target_head, as <link>.head, for a classification"
        if "target_head" in self.inputs and not (classifies and soft):
            return "inputs.target_head is only read by loss.soft of a classification"
        if not classifies and self.head_rate != type(self).model_fields["head_rate"].default:
            return "head_rate is only read for a classification"
        if not classifies and self.loss.soft is not None and self.loss.soft.temperature != _USUAL:
            return "loss.soft.temperature is only read for a classification"
        return None


class TaskSettings(HeadSettings):
    """An encoder learns a task from labelled text, or from another encoder that has learned it."""

    implementation: ClassVar[str] = "mlkd.stages.task:TaskStage"
    version: ClassVar[int] = 3
    roles: ClassVar[frozenset[str]] = frozenset({"start"})
    optional_roles: ClassVar[frozenset[str]] = frozenset({"target", "target_head"})
    outputs: ClassVar[frozenset[str]] = frozenset({"student", "head"})

    stage: Literal["task"]
    loss: TaskLossConfig = TaskLossConfig()
    map: Literal["first", "stride", "last", "ends"] | None = None
    """Which layer of the target each layer aims at, for ``loss.hidden`` and ``loss.attention``
    (see stage ``layers``)."""
    select: Literal["score", "loss"] = "score"
    """What decides which weights are the best on dev: Spearman of a similarity and accuracy of a
    classification, or the loss."""

    @model_validator(mode="after")
    def _target_is_read(self) -> TaskSettings:
        from_target = self.loss.soft is not None or self.loss.compares_layers
        if from_target and "target" not in self.inputs:
            raise ValueError("loss.soft, loss.hidden and loss.attention need inputs.target")
        if "target" in self.inputs and not from_target:
            raise ValueError(
                "inputs.target is not read; give loss.soft, loss.hidden or loss.attention"
            )
        if self.loss.compares_layers != (self.map is not None):
            raise ValueError("map goes with loss.hidden or loss.attention; give both or none")
        return self
