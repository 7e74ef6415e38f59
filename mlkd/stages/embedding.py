"""The embedding layer alone imitates that of a frozen encoder."""

from __future__ import annotations

from torch import Tensor, nn

from mlkd.config.stages.embedding import EmbeddingSettings
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.compact import mean_pool
from mlkd.stages.sentence import SentenceStage
from mlkd.stages.signals import Signals, Vectors


class EmbeddingStage(SentenceStage):
    """The embedding's masked mean aims at ``A⁰`` of the same sentence, with no encoder layer.

    Ding et al., 2022, stage 2. Nothing behind the embedding is run or trained.
    """

    settings: EmbeddingSettings  # type: ignore[assignment]  # it has a loss as well

    @classmethod
    def signals(cls, settings: EmbeddingSettings) -> Signals:  # type: ignore[override]  # its own
        """Means of the target's embedding layer, each side's own."""
        return Signals(Vectors("translation", layers=False))

    def trained(self) -> nn.Module:
        """The embedding layer."""
        embeddings: nn.Module = backbone_of(self.model).embeddings
        return embeddings

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Masked mean of the embedding output ``(U, d)``."""
        return mean_pool(self.trained()(input_ids=ids).float(), mask)
