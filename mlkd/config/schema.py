"""The schema of the composed configuration: names, units, ranges and defaults.

These models are also the typed arguments of everything below the entry points. The module
imports neither torch nor transformers, so that a typo is refused within a second.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mlkd.config.inputs import DataConfig, EncoderConfig, EvalConfig, Language
from mlkd.config.section import Folder, Fraction, Positive, Section

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Accelerator = Literal["auto", "cpu", "gpu"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

StageName = Literal["assistant", "bottleneck", "recurrent", "contrastive"]


class VocabularyConfig(Section):
    """The multilingual vocabulary of an assistant that is built from the teacher."""

    size: Annotated[int, Field(ge=100)] = 8000
    """Pieces learned from the pairs (fewer if the text is small), besides accented letters."""
    keep_teacher: bool = True
    """Keep the teacher's own pieces (WordPiece teachers), so that English stays as it is, and
    learn the new ones from the translations; otherwise learn all from both sides."""
    rows: Literal["subwords", "aligned"] = "subwords"
    """How rows of new pieces start: as the mean of the teacher's pieces for the same characters,
    or as the mean of the English pieces they are translated with (IBM model 1)."""


class AssistantConfig(Section):
    """The multilingual assistant: a ready encoder, or the teacher with a new vocabulary."""

    encoder: EncoderConfig | None = None
    """Ready multilingual encoder; null = build it from the teacher."""
    vocabulary: VocabularyConfig | None = None
    """Only for an assistant that is built from the teacher."""
    train: bool
    """Whether stage 1 trains it (always useful when it is built from the teacher)."""
    seed: Seed
    """Seed of stage 1: that of the chain, unless chains of several seeds share one assistant."""

    @model_validator(mode="before")
    @classmethod
    def _size_of_no_vocabulary(cls, values: Any) -> Any:
        """Leave out what experiments say of a vocabulary where a ready encoder has its own."""
        if not isinstance(values, dict) or values.get("encoder") is None:
            return values
        whole, given = VocabularyConfig.model_fields.keys(), values.get("vocabulary")
        partial = isinstance(given, dict) and given.keys() < whole
        return values | {"vocabulary": None} if partial else values

    @model_validator(mode="after")
    def _one_kind(self) -> AssistantConfig:
        if (self.encoder is None) == (self.vocabulary is None):
            raise ValueError("give exactly one of encoder and vocabulary")
        return self


class TrimConfig(Section):
    """Which pieces of the vocabulary stay (Ansell et al., 2023)."""

    languages: Annotated[list[Language], Field(min_length=1)] | None = None
    """Languages whose pieces stay; null = all of the pairs."""
    min_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-6
    """Share of a language's tokens from which a piece stays."""


class StudentConfig(Section):
    """Size of the student (Ding et al., 2022, sections 3.2 and 3.3)."""

    bottleneck: Positive | None
    """Width e of the factorised word embedding; null = full width."""
    layers: Positive
    """Stored encoder layers K."""
    recurrence: Positive
    """How often the stack of stored layers is run, R; parameters do not depend on it."""
    intermediate: Positive | None = None
    """Neurons between the two matrices of a layer's feed-forward part; null = as the source."""
    trim: TrimConfig | None = None
    """Leaves out what the training pairs do not use; null = the whole vocabulary of the source."""


class InitConfig(Section):
    """How the student starts (Wibowo et al., 2024; methods of Ding et al., 2022)."""

    source: Literal["scratch", "base", "teacher"]
    """Random, the assistant before stage 1, or the assistant after stage 1."""
    layers: Literal["first", "stride", "last", "ends"]
    """Which layers of the source the stored layers copy."""
    embedding: Literal["copy", "svd", "random"]
    """Word table: copied (no bottleneck only), factorised by weighted SVD, or random together with
    positions, types and LayerNorm (the paper's stage 2)."""
    frequency_power: Fraction = 0.5
    """Weight of a token in that SVD: its frequency to this power. At 1 the function words take most
    of the table, at 0 the rarest word counts as much as the most frequent one."""

    @model_validator(mode="after")
    def _scratch_is_random(self) -> InitConfig:
        if self.source == "scratch" and self.embedding != "random":
            raise ValueError(f"source=scratch needs embedding=random, not {self.embedding}")
        if self.source == "scratch" and self.layers != "first":
            raise ValueError(f"source=scratch copies nothing; layers={self.layers} would be first")
        usual = type(self).model_fields["frequency_power"].default
        if self.embedding != "svd" and self.frequency_power != usual:
            raise ValueError(
                f"frequency_power={self.frequency_power} is only read with embedding=svd"
            )
        return self


class PairMSEConfig(Section):
    """Weight of the mean squared error to the targets of both sides."""

    weight: Annotated[float, Field(ge=0.0)] = 1.0


class MCLConfig(Section):
    """Multilingual contrastive learning on the batch's similarity matrix."""

    weight: Annotated[float, Field(ge=0.0)] = 1.0
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


class StageConfig(Section):
    """Budget, step size and loss of one stage."""

    enabled: bool = True
    """false leaves the stage out of the chain (an ablation)."""
    epochs: Annotated[float, Field(gt=0.0)]
    """Passes over the training pairs."""
    max_steps: Positive | None = None
    """Upper limit of optimiser steps, whatever the epochs."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the source sentences whose pairs this stage trains on; ``data.fraction`` is for the
    whole chain, the assistant's vocabulary included."""
    batch_size: Positive
    """Pairs an optimiser step, over all devices."""
    lr: Annotated[float, Field(gt=0.0, le=1.0)]
    """Peak learning rate."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Hidden and attention dropout while training; the targets are deterministic."""
    loss: LossConfig


class OptimConfig(Section):
    """AdamW with linear warm-up and decay."""

    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """Not applied to biases and LayerNorm."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0.0)] = 1e-8
    """Far below the gradients, which are about 1e-6 here: targets have length 1 and the error is a
    mean over dimensions. The 1e-6 of Ding et al. (2022) would shrink most steps."""
    clip: Annotated[float, Field(gt=0.0)] = 1.0
    """Upper limit of the gradient norm."""
    warmup: Fraction = 0.1
    """Share of the steps in which the learning rate rises from 0."""
    decay: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls to 0 after the warm-up."""


class TrainerConfig(Section):
    """Where and how precisely training runs, how often it validates and saves."""

    accelerator: Accelerator = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` = bf16 mixed precision where the hardware multiplies bf16 matrices, else fp32."""
    devices: Positive = 1
    """GPUs, or processes where there is none, a node; several are tasks of a SLURM job."""
    nodes: Positive = 1
    """Machines; several are nodes of a SLURM job."""
    threads: Positive | None = None
    """CPU threads; null = what torch finds."""
    validations: Positive = 4
    """At most about so many validations a stage, evenly spread, and one at the end."""
    skip_bad_batches: Annotated[int, Field(ge=0)] = 0
    """So many batches with a loss or gradient that is not finite are left out and counted; one
    more stops the run."""
    save_minutes: Annotated[float, Field(gt=0.0)] = 2.0
    """Minutes between checkpoints."""
    save_steps: Positive | None = None
    """Steps between checkpoints, besides; null = by time alone."""
    save_cost: Annotated[float, Field(gt=0.0, le=1.0)] = 0.02
    """Share of the training time that saving may take; if it is slow, it is done less often."""
    max_hours: Annotated[float, Field(gt=0.0)] | None = None
    """After so many hours the process saves and stops with status 143; null = no limit."""

    @property
    def processes(self) -> int:
        """How many processes train a run together."""
        return self.devices * self.nodes


class LoggerConfig(Section):
    """Where curves go besides the run folder."""

    kind: Literal["csv", "wandb"] = "csv"
    project: str = "mlkd"
    group: str | None = None
    tags: list[str] = Field(default_factory=list)
    mode: Literal["auto", "offline", "online"] = "auto"
    """``offline`` writes W&B files into the run folder and sends nothing; ``auto`` does so where no
    API key is set, or WANDB_MODE is another than online."""
    artifact: bool = False
    """Whether W&B keeps the student folder."""


class TrainConfig(Section):
    """The whole of ``python -m mlkd.train``."""

    stage: StageName
    """Last stage of the chain."""
    stages: dict[StageName, StageConfig]
    teacher: EncoderConfig
    assistant: AssistantConfig
    student: StudentConfig
    init: InitConfig
    data: DataConfig
    optim: OptimConfig
    trainer: TrainerConfig
    logger: LoggerConfig
    eval: EvalConfig
    seed: Seed = 0
    output_dir: Folder = "outputs"
    """Runs go to ``runs/`` in it, recomputable files to ``cache/``."""
    allow_download: bool = False
    """Whether a hub model or dataset that is not in the local cache may be downloaded."""

    def seed_of(self, stage: StageName) -> int:
        """Seed of a stage: the assistant's may be another than the student's."""
        return self.assistant.seed if stage == "assistant" else self.seed

    @model_validator(mode="after")
    def _combination_is_possible(self) -> TrainConfig:
        if self.stage not in self.stages or not self.stages[self.stage].enabled:
            raise ValueError(f"stage={self.stage} needs stages.{self.stage}.enabled=true")
        processes = self.trainer.processes
        for name, stage in self.stages.items():
            if stage.batch_size % processes:
                raise ValueError(
                    f"stages.{name}.batch_size={stage.batch_size} must be a multiple of "
                    f"trainer.devices * trainer.nodes = {processes}"
                )
        bottleneck, init = self.student.bottleneck, self.init
        if bottleneck is None and init.embedding == "svd":
            raise ValueError("init.embedding=svd needs student.bottleneck; use copy or random")
        if bottleneck is not None and init.embedding == "copy":
            raise ValueError(
                f"init.embedding=copy needs student.bottleneck=null, not {bottleneck}; "
                "use svd or random"
            )
        return self
