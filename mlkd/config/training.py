"""Schemas of how training runs: optimiser, trainer, logger."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mlkd.config.section import Decides, Fraction, Positive, Section, Several

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Accelerator = Literal["auto", "cpu", "gpu"]


class OptimConfig(Section):
    """AdamW with linear warm-up and decay."""

    version: ClassVar[int] = 1
    """Of the training itself: what all stages share, the forward pass, which weights are kept."""

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


class LimitsConfig(Section):
    """Upper limits of every link, for a look at whether all of it works."""

    max_steps: Positive | None = None
    batch_size: Positive | None = None


class TrainerConfig(Section):
    """Where and how precisely training runs, how often it validates and saves."""

    accelerator: Annotated[Accelerator, Decides.NOTHING] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` = bf16 mixed precision where the hardware multiplies bf16 matrices, else fp32."""
    devices: Annotated[Positive, Decides.NOTHING] = 1
    """GPUs, or processes where there is none, a node; several are tasks of a SLURM job."""
    nodes: Annotated[Positive, Decides.NOTHING] = 1
    """Machines; several are nodes of a SLURM job."""
    threads: Annotated[Positive | None, Decides.NOTHING] = None
    """CPU threads; null = what torch finds."""
    validations: Positive = 4
    """At most about so many validations a stage, evenly spread, and one at the end."""
    skip_bad_batches: Annotated[int, Field(ge=0)] = 0
    """So many batches with a loss or gradient that is not finite are left out and counted; one
    more stops the run."""
    save_minutes: Annotated[float, Field(gt=0.0), Decides.NOTHING] = 2.0
    """Minutes between checkpoints."""
    save_steps: Annotated[Positive | None, Decides.NOTHING] = None
    """Steps between checkpoints, besides; null = by time alone."""
    save_cost: Annotated[float, Field(gt=0.0, le=1.0), Decides.NOTHING] = 0.02
    """Share of the training time that saving may take; if it is slow, it is done less often."""
    max_hours: Annotated[float | None, Field(gt=0.0), Decides.NOTHING] = None
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
    tags: Several[str] = Field(default_factory=list)
    mode: Literal["auto", "offline", "online"] = "auto"
    """``offline`` writes W&B files into the run folder and sends nothing; ``auto`` does so where no
    API key is set, or WANDB_MODE is another than online."""
    artifact: bool = False
    """Whether W&B keeps the student folder."""

    @model_validator(mode="after")
    def _every_key_is_read(self) -> LoggerConfig:
        for name, field in type(self).model_fields.items():
            usual = field.get_default(call_default_factory=True)
            if name != "kind" and self.kind == "csv" and getattr(self, name) != usual:
                raise ValueError(f"{name} is only read with logger=wandb")
        return self
