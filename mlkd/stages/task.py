"""An encoder learns a task from labelled text, or from another encoder that has learned it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, SpearmanCorrCoef
from torchmetrics.classification import MulticlassAccuracy

from mlkd.config.stages.task import TaskSettings
from mlkd.data.module import PairBatch
from mlkd.encoders.forward import Taps, encode
from mlkd.encoders.head import Head, load_head, save_head
from mlkd.losses.gold import Gold
from mlkd.losses.soft import Soft
from mlkd.output.errors import UserError
from mlkd.stages.base import ParameterGroup, Stage, StepOutput, weighted
from mlkd.stages.layer_terms import LayerTerms
from mlkd.stages.signals import Signals


class TaskStage(Stage):
    """Similarity by the cosine of two sentence vectors, classification by a linear head on one.

    It learns from labels, from an encoder that has learned the task (soft labels or cosines, token
    states, attention; Ansell et al., 2023, phase 2), or from both.

    Attributes:
        head: Logits ``(n, C)`` of unit sentence vectors; None of a similarity.
    """

    settings: TaskSettings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert self.task is not None
        settings, kind = self.settings, self.task.kind
        loss, width = settings.loss, int(self.model.get_embedding_dimension() or 0)
        self.may_collapse = kind == "classification"
        self.head: nn.Linear | None = None
        self.score: Metric  # on dev; in no checkpoint
        if kind == "classification":
            classes = len(self.task.labels)
            self.head = nn.Linear(width, classes)  # as the seed of the link says
            self.score = MulticlassAccuracy(classes, average="micro")
            self._score_name = "dev/accuracy"
        else:
            self.score, self._score_name = SpearmanCorrCoef(), "dev/spearman"
        if settings.select == "score":
            self.selects, self.selects_largest = self._score_name, True
        self.gold = Gold(kind)
        self.soft = Soft(kind, loss.soft.temperature) if loss.soft is not None else None
        self._target_head = given_head(self)
        self._layers: LayerTerms | None = None
        if settings.map is not None:
            target, stage = self.live["target"].encoder, settings.stage
            self._layers = LayerTerms(
                stage, self.model, target, settings.map, loss.hidden, loss.attention
            )

    @classmethod
    def signals(cls, settings: TaskSettings) -> Signals:  # type: ignore[override]  # its own
        """The target in the step, if there is one."""
        return Signals(live=frozenset({"target"} & settings.inputs.keys()))

    def objective(self, batch: PairBatch) -> StepOutput:
        """Loss of one batch; on dev its scores are remembered as well."""
        loss, terms = self.settings.loss, {}
        with_soft = self.soft is not None
        mine, theirs = Taps(), Taps(with_soft)
        if self._layers is not None:
            mine, theirs = self._layers.taps(sentence=True, of_target=with_soft)
        found = encode(self.model, batch.ids, batch.mask, mine)
        # Mixed precision is for the encoders.
        with torch.autocast(self.device.type, enabled=False):
            scores = self.scores(found.sentence.float(), batch)
            assert batch.value is not None
            if loss.gold is not None:
                terms["gold"] = loss.gold.weight, self.gold(scores, batch.value)
        if "target" in self.live:
            wanted = self.live["target"].encode(batch.ids, batch.mask, theirs)
            with torch.autocast(self.device.type, enabled=False):
                if loss.soft is not None and self.soft is not None:
                    aim = self._target_scores(wanted.sentence.float(), batch)
                    terms["soft"] = loss.soft.weight, self.soft(scores, aim)
                if self._layers is not None:
                    terms |= self._layers.terms(found, wanted, batch.mask)
        if not self.training:
            gold = batch.value if self.head is None else batch.value.long()
            self.score.update(scores.detach(), gold)
        return weighted(terms)

    def scores(self, vectors: Tensor, batch: PairBatch) -> Tensor:
        """Logits ``(B, C)`` or cosines ``(B,)`` of a batch's rows.

        Args:
            vectors: Those of its sentences ``(U, d)``.
            batch: The rows.
        """
        if self.head is not None:
            logits: Tensor = self.head(F.normalize(vectors[batch.source]))
            return logits
        return similarities(vectors, batch)

    def on_validation_epoch_end(self) -> None:
        """Log Spearman or accuracy on dev, from 0 to 1, with the means."""
        super().on_validation_epoch_end()
        score = self.score.compute().nan_to_num()  # constant cosines have no rank correlation
        self.log(self._score_name, score)
        self.score.reset()

    def parameter_groups(self) -> list[ParameterGroup]:
        """The head learns at a rate of its own."""
        groups = [ParameterGroup([p for p in self.model.parameters() if p.requires_grad])]
        if self.head is not None:
            head = list(self.head.parameters())
            groups.append(ParameterGroup(head, rate=self.settings.head_rate))
        return groups

    def outputs(self) -> dict[str, Callable[[Path], None]]:
        """The head of a classification, with its labels."""
        if self.head is None or self.task is None:
            return {}
        weight, bias, labels = self.head.weight, self.head.bias, self.task.labels
        return {"head": lambda folder: save_head(weight, bias, labels, folder)}

    def _target_scores(self, vectors: Tensor, batch: PairBatch) -> Tensor:
        """The same of the target."""
        vectors = vectors.to(self.device)
        if self._target_head is not None:
            return self._target_head.logits(vectors[batch.source])
        return similarities(vectors, batch)


def similarities(vectors: Tensor, batch: PairBatch) -> Tensor:
    """Cosines ``(B,)`` of the two sides of each row, from vectors of the sentences ``(U, d)``."""
    return F.cosine_similarity(vectors[batch.source], vectors[batch.translation])


def given_head(stage: Stage) -> Head | None:
    """The head of a stage's target, if it is read.

    Raises:
        UserError: It is another encoder's, or has other labels.
    """
    if "target_head" not in stage.folders or stage.task is None:
        return None
    folder = stage.folders["target_head"]
    head = load_head(folder, stage.live["target"].encoder.dimension)
    if head.labels != stage.task.labels:
        raise UserError(
            f"{folder}: its labels are {', '.join(head.labels)}, those "
            f"of the labelled text {', '.join(stage.task.labels)}"
        )
    return head
