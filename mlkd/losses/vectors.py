"""What sentence-level loss terms see."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PairVectors:
    """Student vectors of B pairs and their targets, all float32 ``(B, d)``."""

    source: Tensor
    translation: Tensor
    source_target: Tensor
    translation_target: Tensor
    source_id: Tensor
    """Which sentence the source is ``(B,)``: the same one may come with several translations."""
    translation_id: Tensor
    """Which sentence the translation is ``(B,)``."""
