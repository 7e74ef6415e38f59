"""Stage 3: the whole student imitates the assistant."""

from __future__ import annotations

from mlkd.stages.base import Stage


class RecurrentStage(Stage):
    """Each side aims at the assistant's vector of the same sentence (Ding et al., 2022)."""

    name = "recurrent"
    target_encoder = "assistant"
    translation_target = "translation"
