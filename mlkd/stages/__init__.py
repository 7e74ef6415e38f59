"""The stages: one LightningModule each."""

from __future__ import annotations

from mlkd.stages.assistant import AssistantStage
from mlkd.stages.base import Stage
from mlkd.stages.bottleneck import BottleneckStage
from mlkd.stages.contrastive import ContrastiveStage
from mlkd.stages.recurrent import RecurrentStage

STAGES: dict[str, type[Stage]] = {
    "assistant": AssistantStage,
    "bottleneck": BottleneckStage,
    "recurrent": RecurrentStage,
    "contrastive": ContrastiveStage,
}
"""Name in ``conf/stage`` and class, in the order of the chain."""
