"""Stage 2: the bottleneck embedding alone imitates the assistant's embedding layer."""

from __future__ import annotations

from torch import Tensor, nn

from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.compact import mean_pool
from mlkd.stages.base import Stage


class BottleneckStage(Stage):
    """The embedding's masked mean aims at ``A⁰`` of the same sentence, with no encoder layer.

    Ding et al., 2022, stage 2. Nothing behind the embedding is run or trained.
    """

    name = "bottleneck"
    target_encoder = "assistant_embeddings"
    translation_target = "translation"

    def trained(self) -> nn.Module:
        """The embedding layer."""
        embeddings: nn.Module = backbone_of(self.model).embeddings
        return embeddings

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Masked mean of the embedding output ``(U, d)``."""
        return mean_pool(self.trained()(input_ids=ids).float(), mask)
