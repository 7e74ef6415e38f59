"""Schemas of a sweep and of its launchers; like :mod:`mlkd.schema`, free of torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mlkd.schema import Positive, Section

Value = str | float | int | bool | None


class SweepConfig(Section):
    """What ``sweep=...`` names: a grid of settings."""

    name: str
    """Starts the name of the multirun folder."""
    grid: dict[str, list[Value]] = Field(default_factory=dict)
    """Values of each setting; the cells are all combinations. A setting or a config group that is
    named on the command line takes the place of the grid's."""


class LocalConfig(Section):
    """``hydra/launcher=local``: a process a cell on this machine."""

    kind: Literal["local"]
    processes: Positive | None = None
    """Cells at a time; null = one a GPU, or one a CPU core where there is none."""


class SlurmConfig(Section):
    """``hydra/launcher=slurm``: an array of batch jobs through submitit."""

    kind: Literal["slurm"]
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus_per_node: Positive | None = None
    """null = none asked for."""
    cpus_per_task: Positive = 1
    mem_gb: Annotated[float, Field(gt=0.0)] | None = None
    """Memory a node (GB); null = the cluster's default."""
    timeout_min: Positive = 240
    """Time limit of a job (minutes). A job that reaches it is requeued and goes on."""
    signal_delay_s: Positive = 90
    """Seconds before the time limit at which a job saves and is requeued."""
    array_parallelism: Positive = 256
    """Cells that run at a time, of those that share the same links."""
    setup: list[str] = Field(default_factory=list)
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
