"""The global batch of a distributed run."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from mlkd.machine.ranks import world_size


def gather_ranks(rows: Tensor) -> Tensor:
    """Rows ``(B, d)`` of all ranks, one after the other ``(world * B, d)``, with gradients.

    Every rank computes the same loss from them, so each rank's gradient is the sum over ranks;
    averaging over ranks, as data-parallel training does, gives that of one rank with the joined
    batch. Without gradients, that is on dev, every rank sees the whole batch by itself.
    """
    if world_size() == 1 or not torch.is_grad_enabled():
        return rows
    parts = all_gather(rows.contiguous())
    for part in parts:
        if part.requires_grad:  # its backward takes the memory of gradients for rows
            part.register_hook(Tensor.contiguous)
    return torch.cat(parts)
