"""Schemas of a sweep and of its launchers; like :mod:`mlkd.config.schema`, free of torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mlkd.config.section import Positive, Section, Several

Value = str | float | int | bool | None


class RangeConfig(Section):
    """Whole or real numbers that a search may draw."""

    low: float
    high: float
    log: bool = False
    """Draw evenly on a logarithmic scale."""
    whole: bool = False
    """Whole numbers only; otherwise three digits are kept."""

    @model_validator(mode="after")
    def _is_a_range(self) -> RangeConfig:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} must be below high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low={self.low} must be above 0 on a logarithmic scale")
        if self.whole and (self.low % 1 or self.high % 1):
            raise ValueError(f"low={self.low} and high={self.high} must be whole numbers")
        return self


class OptunaConfig(Section):
    """A search by Optuna for high quality at few bytes."""

    trials: Positive
    """Cells in all, those of earlier calls included."""
    parallel: Positive = 1
    """Cells drawn and launched together."""
    seed: Annotated[int, Field(ge=0)] = 0
    space: dict[str, Annotated[list[Value], Field(min_length=1)] | RangeConfig] = Field(
        min_length=1
    )
    """What is drawn for each setting: one of a list, or a number of a range. A setting that is
    named on the command line takes the place of the one here."""


class SweepConfig(Section):
    """What ``sweep=...`` names: a grid of settings, or a search."""

    name: str
    """Starts the name of the multirun folder."""
    grid: dict[str, list[Value]] = Field(default_factory=dict)
    """Values of each setting; the cells are all combinations. A setting or a config group that is
    named on the command line takes the place of the grid's."""
    optuna: OptunaConfig | None = None

    @model_validator(mode="after")
    def _grid_or_search(self) -> SweepConfig:
        if bool(self.grid) == (self.optuna is not None):
            raise ValueError("give either sweep.grid or sweep.optuna")
        return self


class LocalConfig(Section):
    """``hydra/launcher=local``: a process a cell on this machine."""

    kind: Literal["local"]
    processes: Positive | None = None
    """Cells at a time; null = one a GPU, or one a CPU core where there is none."""


class SlurmConfig(Section):
    """``hydra/launcher=slurm``: an array of batch jobs through submitit.

    Nodes and tasks a node are ``trainer.nodes`` and ``trainer.devices``.
    """

    kind: Literal["slurm"]
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus_per_node: Positive | None = None
    """null = none asked for."""
    cpus_per_task: Positive = 2
    mem_gb: Annotated[float, Field(gt=0.0)] | None = None
    """Memory a node (GB); null = the cluster's default."""
    timeout_min: Positive = 240
    """Time limit of a job (minutes). A job that reaches it is requeued and goes on."""
    signal_delay_s: Positive = 90
    """Seconds before the time limit at which a job saves and is requeued."""
    array_parallelism: Positive = 256
    """Cells that run at a time, of those that share the same links."""
    setup: Several[str] = Field(default_factory=list)
    """Shell lines before the job, such as ``module load cuda``."""
    additional_parameters: dict[str, Any] = Field(default_factory=dict)
    """Other options of ``sbatch`` by their long names."""

    @model_validator(mode="after")
    def _signal_comes_in_time(self) -> SlurmConfig:
        # SLURM may send the signal 60 s early, and imports take their time.
        if 60 * self.timeout_min < self.signal_delay_s + 90:
            raise ValueError(
                f"timeout_min={self.timeout_min} is too short for signal_delay_s="
                f"{self.signal_delay_s}; allowed: at least {-(-(self.signal_delay_s + 90) // 60)}"
            )
        return self


Launcher = LocalConfig | SlurmConfig | None
"""None = one cell after the other in this process (Hydra's ``basic``)."""
