"""The schema of the composed configuration of ``python -m mlkd.train``.

All schemas are free of torch and transformers, so that a typo is refused within a second; they are
also the typed arguments of everything below the recipes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mlkd.config.evaluation import EvalConfig
from mlkd.config.inputs import DataConfig, EncoderConfig
from mlkd.config.paths import OUTPUTS
from mlkd.config.section import Decides, Folder, Section, Seed, Several
from mlkd.config.stages import AnyStage, StageSettings
from mlkd.config.student import AssistantConfig, InitConfig, StudentConfig
from mlkd.config.training import LimitsConfig, LoggerConfig, OptimConfig, TrainerConfig

MiB = Annotated[float, Field(gt=0.0)]


class TrainConfig(Section):
    """The whole of ``python -m mlkd.train``."""

    recipe: Annotated[str, Decides.CHAIN]
    """Name of the recipe; the links that it has are those of ``stages``."""
    stage: Annotated[str, Decides.CHAIN]
    """Last link of the chain."""
    limits: Annotated[LimitsConfig, Decides.NOTHING] = LimitsConfig()
    """Entered into the links when the configuration is read."""
    stages: dict[str, AnyStage] = Field(min_length=1)
    """The links of the recipe in their order."""
    teacher: EncoderConfig
    assistant: AssistantConfig
    student: StudentConfig
    budget_mib: Annotated[Several[MiB] | None, Field(min_length=1), Decides.CHAIN] = None
    """Size of the student's graph; its shape is searched for, among starts without training.
    Several sizes: a student of each, the largest first, the next one cut from it."""
    budget_share: Annotated[float, Field(gt=0.0, le=1.0), Decides.CHAIN] = 0.25
    """Training of each further student of several sizes, in parts of the first one's."""
    budget_of: Annotated[Literal["fp32", "int8", "q4"], Decides.CHAIN] = "int8"
    """How the graph of that size stores its weights."""
    init: InitConfig
    data: DataConfig
    optim: Annotated[OptimConfig, Decides.CHAIN]
    """The optimiser of the chain; each link has its own, in ``conf/`` a copy of it."""
    trainer: TrainerConfig
    logger: Annotated[LoggerConfig, Decides.NOTHING]
    eval: Annotated[EvalConfig, Decides.SCORES]
    seed: Seed = 0
    output_dir: Annotated[Folder, Decides.NOTHING] = OUTPUTS
    """Runs go to ``runs/`` in it, recomputable files to ``cache/``."""
    allow_download: Annotated[bool, Decides.NOTHING] = False
    """Whether a hub model or dataset that is not in the local cache may be downloaded."""

    @field_validator("stages", mode="after")
    @classmethod
    def _within_limits(
        cls, stages: dict[str, StageSettings], info: ValidationInfo
    ) -> dict[str, StageSettings]:
        limits = info.data.get("limits", LimitsConfig()).model_dump(exclude_none=True)
        return {
            name: link.model_copy(
                update={key: min(getattr(link, key) or most, most) for key, most in limits.items()}
            )
            for name, link in stages.items()
        }

    @model_validator(mode="after")
    def _combination_is_possible(self) -> TrainConfig:
        processes = self.trainer.processes
        for name, link in self.stages.items():
            if link.batch_size % processes:
                raise ValueError(
                    f"stages.{name}.batch_size={link.batch_size} must be a multiple of "
                    f"trainer.devices * trainer.nodes = {processes}"
                )
        if self.budget_mib is None and self.budget_of != "int8":
            raise ValueError(f"budget_of={self.budget_of} is only read with budget_mib")
        usual = type(self).model_fields["budget_share"].default
        if len(set(self.budget_mib or [])) < 2 and self.budget_share != usual:
            raise ValueError("budget_share is only read with several sizes, as budget_mib=[8,5]")
        how, allowed = self.init.embedding, _ways_to_start(self.student)
        if how not in allowed and self.budget_mib is None:
            raise ValueError(
                f"init.embedding={how} is not for a student with {_table_of(self.student)}; "
                f"use {' or '.join(allowed)}"
            )
        return self


def _table_of(student: StudentConfig) -> str:
    """What a student's word table is, as settings."""
    if student.bottleneck is not None:
        return f"student.bottleneck={student.bottleneck}"
    if student.codes is not None:
        return f"student.codes={student.codes}"
    return "student.bottleneck=null"


def _ways_to_start(student: StudentConfig) -> tuple[str, str]:
    """How its word table can start."""
    if student.bottleneck is not None:
        return "svd", "random"
    return ("kmeans" if student.codes is not None else "copy"), "random"
