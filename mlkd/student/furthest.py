"""The entries of an encoder that a training has moved furthest: an exact top K over all tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mlkd.output.errors import UserError

_HALF = 1 << 16


def furthest(start: Mapping[str, Tensor], moved: Mapping[str, Tensor], count: int) -> list[Tensor]:
    """Choose the entries with the largest ``|moved - start|`` in one pool over all tensors.

    Of entries that moved equally far the first ones count, in the order of ``start``. The bits of
    non-negative floats have the order of their values, so that counting upper and lower halves of
    these gives the K-th largest exactly. What is needed besides the result is one tensor long.

    Args:
        start: Tensors before, float32, in order.
        moved: The same after.
        count: Entries to choose, K.

    Returns:
        Bool masks of the shapes of ``start``, in its order, with ``count`` entries in all, or with
        all that there are.

    Raises:
        UserError: A tensor is not finite.
    """

    def distance(name: str) -> Tensor:
        """Bits of how far each entry has moved, flat."""
        far = (moved[name].detach().cpu() - start[name].detach().cpu()).abs().contiguous()
        if not far.isfinite().all():
            raise UserError(f"{name}: an entry is not finite, or has moved too far")
        return far.view(-1).view(torch.int32)

    upper = torch.zeros(_HALF, dtype=torch.int64)
    for name in start:
        upper += torch.bincount(distance(name) >> 16, minlength=_HALF)
    half, above = _reached(upper, count)
    lower = torch.zeros(_HALF, dtype=torch.int64)
    for name in start:
        bits = distance(name)
        lower += torch.bincount(bits[bits >> 16 == half] & (_HALF - 1), minlength=_HALF)
    rest, more = _reached(lower, count - above)
    least, ties = half * _HALF + rest, count - above - more
    masks = []
    for name, tensor in start.items():
        bits = distance(name)
        mask = bits > least
        equal = (bits == least).nonzero()[:, 0][:ties]
        mask[equal] = True
        ties -= len(equal)
        masks.append(mask.view(tensor.shape))
    return masks


def _reached(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The largest value such that as many are at least that large, and how many are larger.

    Args:
        counts: How often each value is there ``(values,)``.
        wanted: At least 1; more than there are means all.
    """
    at_least = counts.flip(0).cumsum(0).flip(0)
    value = int((at_least >= min(wanted, int(at_least[0]))).nonzero()[-1])
    return value, int(at_least[value] - counts[value])
