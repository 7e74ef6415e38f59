"""The global batch of a distributed run."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def gather_ranks(rows: Tensor) -> Tensor:
    """Rows ``(B, d)`` of all ranks, one after the other ``(world * B, d)``, with gradients.

    Every rank computes the same loss from them, so each rank's gradient is the sum over ranks;
    averaging over ranks, as data-parallel training does, gives that of one rank with the joined
    batch. Without gradients, that is on dev, every rank sees the whole batch by itself.
    """
    if not torch.is_grad_enabled():
        return rows
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows
    return torch.cat(all_gather(rows.contiguous()))
