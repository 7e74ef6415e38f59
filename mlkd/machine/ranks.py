"""The processes that train one run together: GPUs or machines, or CPU processes with gloo."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor

from mlkd.config.training import TrainerConfig
from mlkd.machine.hardware import device_of
from mlkd.output.errors import UserError
from mlkd.output.started import by_srun, by_torchrun, started_processes

_PATIENCE = datetime.timedelta(hours=24)
"""The others wait so long for the first process, which prepares and evaluates alone."""


@contextmanager
def join_ranks(config: TrainerConfig) -> Iterator[None]:
    """Join the processes of a run; with one process there is nothing to do.

    Raises:
        UserError: There are not as many processes as the configuration says, or the first one has
            ended before this one.
    """
    wanted, world = config.processes, started_processes()
    if dist.is_initialized():
        yield
        return
    if world != wanted:
        raise UserError(
            f"trainer.devices={config.devices} trainer.nodes={config.nodes}: needs {wanted} "
            f"processes, not {world}; start them with -m and hydra/launcher=slurm, srun or torchrun"
        )
    place = cluster_environment()
    if wanted == 1 or place is None:
        yield
        return
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = place.main_address, str(place.main_port)
    backend = "gloo"
    if device_of(config.accelerator).type == "cuda":
        torch.cuda.set_device(place.local_rank())
        backend = "cpu:gloo,cuda:nccl"
    number = place.global_rank()
    try:
        dist.init_process_group(backend, rank=number, world_size=world, timeout=_PATIENCE)
    except dist.DistError as error:
        where = f"{place.main_address}:{place.main_port}"
        raise UserError(f"process {number} of {world} cannot meet the others at {where}") from error
    try:
        yield
    except RuntimeError as error:
        if is_first() or "onnection" not in str(error):
            raise
        raise UserError("the first process has ended; what it printed says why") from error
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process among them."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process prepares, evaluates and writes for all."""
    return rank() == 0


@contextmanager
def first_ahead() -> Iterator[None]:
    """Keep the other processes out until the first one has left."""
    if not is_first():
        from_first(None)
    yield
    if is_first():
        from_first(None)


def from_first(value: Any) -> Any:
    """Value of the first process, for all of them; they wait for it."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def largest(value: int) -> int:
    """Largest value of all processes."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def mean(value: Tensor) -> Tensor:
    """Mean over all processes of a scalar without gradient; NaN if it is so anywhere."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= world_size()
    return value


def of_all(value: Any) -> list[Any]:
    """Values of all processes, the first one's first."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def cluster_environment() -> ClusterEnvironment | None:
    """Lightning's view of what started this process; None = a plain command.

    Requeueing is switched off there: that is ours (:mod:`mlkd.machine.cluster`).

    Raises:
        UserError: srun was told less than Lightning has to know.
    """
    if by_torchrun():
        return TorchElasticEnvironment()
    if not by_srun():  # maybe in a batch script, of which Lightning would think otherwise
        return LightningEnvironment() if "SLURM_PROCID" in os.environ else None
    try:
        return SLURMEnvironment(auto_requeue=False)
    except RuntimeError as error:
        raise UserError(str(error)) from None
