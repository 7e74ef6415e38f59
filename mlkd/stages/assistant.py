"""Stage 1: the assistant learns the teacher's space in every language."""

from __future__ import annotations

from mlkd.stages.base import Stage


class AssistantStage(Stage):
    """Both sides of a pair aim at ``T(source)`` (Ding et al., 2022; Reimers and Gurevych, 2020)."""

    name = "assistant"
    starts_from = "assistant"
    target_encoder = "teacher"
    translation_target = "source"
