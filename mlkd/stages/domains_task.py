"""Several domains of labelled text at once, with a head for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlkd.config.stages.domains import DomainsTaskSettings
from mlkd.data.module import PairBatch
from mlkd.encoders.forward import Encoded
from mlkd.encoders.head import save_head
from mlkd.losses.soft import Soft
from mlkd.stages.base import ParameterGroup
from mlkd.stages.domains import DomainsStage
from mlkd.stages.signals import Signals
from mlkd.stages.task import given_head, similarities


class DomainsTaskStage(DomainsStage):
    """Dong et al. (2021) as it was published: what the target says of a text is the prediction.

    A classification has a linear head a domain, and aims at the target's soft labels: those of its
    head for the domain, or of its one head. A similarity aims at the target's cosine. Labels and
    scores teach nothing here; on dev they give the accuracy, whose mean over domains selects. A
    similarity selects by the loss.

    Attributes:
        heads: Logits of unit sentence vectors, domain by domain ``(n, D C)``; None of a similarity.
    """

    settings: DomainsTaskSettings
    _asks_target = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.task is not None
        self.soft = Soft(self.task.kind, self.settings.loss.soft.temperature)
        self._target_head = given_head(self)
        self.heads: nn.Linear | None = None
        if self.task.kind == "classification":
            width = int(self.model.get_embedding_dimension() or 0)
            self.heads = nn.Linear(width, len(self.domains) * len(self.task.labels))
            self.may_collapse = True
            self.selects, self.selects_largest = "dev/accuracy", True

    @classmethod
    def signals(cls, settings: DomainsTaskSettings) -> Signals:  # type: ignore[override]  # its own
        """The target in the step."""
        return Signals(live=frozenset({"target"}))

    @property
    def row_weights(self) -> dict[str, float]:
        """What the target says."""
        return {"soft": self.settings.loss.soft.weight}

    def row_errors(self, found: Encoded, wanted: Encoded, batch: PairBatch) -> dict[str, Tensor]:
        """Errors ``(B,)`` to what the target says; on dev of a classification hits as well."""
        theirs = wanted.sentence.float().to(self.device)
        scores, aims = self.scores(found.sentence.float(), batch), self._aimed_at(theirs, batch)
        errors = {"soft": self.soft.errors(scores, aims)}
        if self.heads is not None and not self.training and batch.value is not None:
            errors["accuracy"] = (scores.argmax(1) == batch.value).float()
        return errors

    def scores(self, vectors: Tensor, batch: PairBatch) -> Tensor:
        """Logits ``(B, C)`` of each row's own head, or cosines ``(B,)``.

        Args:
            vectors: Those of the batch's sentences ``(U, d)``.
            batch: The rows.
        """
        if self.heads is None:
            return similarities(vectors, batch)
        logits: Tensor = self.heads(F.normalize(vectors[batch.source]))
        rows = torch.arange(len(batch.domain), device=logits.device)
        return logits.unflatten(1, (len(self.domains), -1))[rows, batch.domain]

    def students(self) -> list[ParameterGroup]:
        """The heads learn at a rate of their own."""
        groups = super().students()
        if self.heads is not None:
            own = list(self.heads.parameters())
            groups.append(ParameterGroup(own, rate=self.settings.head_rate))
        return groups

    def outputs(self) -> dict[str, Callable[[Path], None]]:
        """The heads of a classification as well; their mean is for text of any other domain."""
        found = super().outputs()
        if self.heads is not None and self.task is not None:
            shape, names, labels = (len(self.domains), -1), self.domains, self.task.labels
            weight, bias = (p.unflatten(0, shape) for p in (self.heads.weight, self.heads.bias))
            found["head"] = lambda folder: save_head(weight, bias, labels, folder, names)
        return found

    def _aimed_at(self, vectors: Tensor, batch: PairBatch) -> Tensor:
        """What the target says of each row, as :meth:`scores`."""
        if self._target_head is None:
            return similarities(vectors, batch)
        known = [self._target_head.of(name).logits(vectors) for name in self.domains]
        return torch.stack(known)[batch.domain, batch.source]
