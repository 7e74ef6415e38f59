"""Stage 4: multilingual contrastive learning towards the teacher."""

from __future__ import annotations

from mlkd.stages.base import Stage


class ContrastiveStage(Stage):
    """Both sides aim at ``T(source)``, and their similarities at the teacher's.

    Ding et al., 2022, section 3.4; the terms are those of the stage's loss configuration.
    """

    name = "contrastive"
    target_encoder = "teacher"
    translation_target = "source"
