"""Masked input: some tokens are hidden from an encoder, or others stand in their place."""

from __future__ import annotations

import torch
from torch import Tensor


def masked(
    ids: Tensor,
    words: Tensor,
    *,
    share: float,
    mask_id: int,
    pieces: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Choose a share of the tokens; of these 80 % are masked, 10 % replaced, 10 % stay (BERT).

    Args:
        ids: Token ids ``(U, S)``.
        words: Which of them may be chosen ``(U, S)``, bool: no padding and no special token.
        share: Of the tokens that are chosen; each is by itself.
        mask_id: Id of the mask token.
        pieces: Ids that may take the place of others ``(n,)``.
        generator: Of random numbers on the CPU; None = torch's.
    """
    draw = torch.rand(ids.shape, generator=generator).to(ids.device)
    others = torch.randint(len(pieces), ids.shape, generator=generator).to(ids.device)
    hidden = words & (draw < 0.8 * share)
    replaced = words & (draw >= 0.8 * share) & (draw < 0.9 * share)
    return ids.masked_fill(hidden, mask_id).where(~replaced, pieces.to(ids.device)[others])
