"""What a stage reads besides the pairs: vectors from the cache, encoders in the step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Vectors:
    """Cached sentence vectors of a frozen encoder, the targets of both sides of a pair."""

    translation: Literal["source", "translation"]
    """Whose vector the translation side aims at: the source sentence's, or its own."""
    role: str = "target"
    """The input whose vectors they are."""
    layers: bool = True
    """false: the masked mean of its embedding layer's output (A⁰ of Ding et al., 2022)."""


@dataclass(frozen=True)
class Signals:
    """All that a stage reads."""

    vectors: Vectors | None = None
    live: frozenset[str] = field(default_factory=frozenset)
    """Inputs whose encoders run in the step, frozen (see :mod:`mlkd.targets.live`)."""
