"""The one LightningDataModule of every stage: parallel pairs with their targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from mlkd.data.plan import BatchPlan, labels
from mlkd.data.store import PairStore
from mlkd.data.tokens import TokenStore


class TargetTable(Protocol):
    """Where target vectors come from (see :class:`mlkd.targets.cache.Targets`)."""

    def vectors(self, sentences: np.ndarray) -> np.ndarray:
        """Vectors ``(n, d)`` of sentence indices ``(n,)``."""


@dataclass  # not frozen: Lightning moves its fields to the device
class PairBatch:
    """B pairs over their U distinct sentences: each sentence is encoded once."""

    ids: Tensor
    """Token ids ``(U, S)``."""
    mask: Tensor
    """1 where ``ids`` is no padding ``(U, S)``."""
    sentences: Tensor
    """Index of each sentence in the pair store ``(U,)``."""
    source: Tensor
    """Row of each pair's source sentence ``(B,)``."""
    translation: Tensor
    """Row of each pair's translation ``(B,)``."""
    source_target: Tensor | None
    """Target of the source side ``(B, d)``; None where the stage reads no cached vectors."""
    translation_target: Tensor | None
    """Target of the translation side ``(B, d)``."""
    pairs: Tensor
    """Index of each pair in the pair store ``(B,)``."""
    domain: Tensor
    """Index of each pair's domain in the pair store, or of what else groups the pairs ``(B,)``."""
    value: Tensor | None = None
    """Of labelled text the index of each row's label, or its score from 0 to 1 ``(B,)``,
    float32; a text with a label is both sides of its row."""


@dataclass(frozen=True)
class PairSource:
    """Makes batches from the stores; holds memory-mapped arrays only."""

    pairs: PairStore
    tokens: TokenStore
    targets: TargetTable | None = None
    """None = no vectors are read."""
    translation_target: Literal["source", "translation"] = "source"
    """``source``: both sides aim at the source sentence's vector (stages 1 and 4 of Ding et al.,
    2022); ``translation``: each side aims at its own (stages 2 and 3)."""
    by: Literal["language", "domain"] = "domain"
    """What a pair's ``domain`` is (see :func:`mlkd.data.plan.labels`)."""

    def batch(self, pairs: np.ndarray) -> PairBatch:
        """Collect one batch from pair indices ``(B,)``."""
        source = self.pairs.source[pairs].astype(np.int64)
        translation = self.pairs.translation[pairs].astype(np.int64)
        sentences, rows = np.unique(np.concatenate([source, translation]), return_inverse=True)
        ids, mask = self.tokens.padded(sentences)
        source_target = translation_target = None
        if self.targets is not None:
            source_target = translation_target = torch.from_numpy(self.targets.vectors(source))
            if self.translation_target == "translation":
                translation_target = torch.from_numpy(self.targets.vectors(translation))
        return PairBatch(
            ids=torch.from_numpy(ids),
            mask=torch.from_numpy(mask),
            sentences=torch.from_numpy(sentences),
            source=torch.from_numpy(rows[: len(pairs)]),
            translation=torch.from_numpy(rows[len(pairs) :]),
            source_target=source_target,
            translation_target=translation_target,
            pairs=torch.from_numpy(pairs.astype(np.int64)),
            domain=torch.from_numpy(labels(self.pairs, pairs, self.by)[0].astype(np.int64)),
            value=None if self.pairs.value is None else torch.from_numpy(self.pairs.value[pairs]),
        )


class _Steps(IterableDataset[PairBatch]):
    """Batches of the steps ``start`` to ``stop`` of a plan, for one rank."""

    def __init__(
        self, source: PairSource, plan: BatchPlan, start: int, stop: int, rank: int, world: int
    ) -> None:
        self._source, self._plan = source, plan
        self._start, self._stop = start, stop
        self._rank, self._world = rank, world

    def __iter__(self) -> Iterator[PairBatch]:
        for step in range(self._start, self._stop):
            yield self._source.batch(self._plan.batch(step, self._rank, self._world))


class _Dev(torch.utils.data.Dataset[PairBatch]):
    """Dev batches, always the same, sorted by length."""

    def __init__(self, source: PairSource, batches: list[np.ndarray]) -> None:
        self._source, self._batches = source, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> PairBatch:
        return self._source.batch(self._batches[index])


class ParallelPairs(L.LightningDataModule):
    """Training and dev batches of parallel pairs.

    Training goes on at the step that a restored checkpoint names; the plan needs no other state.
    """

    def __init__(
        self,
        source: PairSource,
        plan: BatchPlan,
        *,
        steps: int,
        dev_pairs: np.ndarray,
        dev_batch_size: int,
    ) -> None:
        """Set up the batches of one run.

        Args:
            source: Stores and targets.
            plan: Which pairs each step trains on.
            steps: Optimiser steps of the whole run.
            dev_pairs: Held-out pairs, sorted by length.
            dev_batch_size: Pairs a dev batch.
        """
        super().__init__()
        self._source, self._plan, self._steps, self._next = source, plan, steps, 0
        self._dev = [
            dev_pairs[i : i + dev_batch_size] for i in range(0, len(dev_pairs), dev_batch_size)
        ]

    def train_dataloader(self) -> DataLoader[PairBatch]:
        """Batches from the next step to the last."""
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        data = _Steps(self._source, self._plan, self._next, self._steps, rank, world)
        return _loader(data)

    def val_dataloader(self) -> DataLoader[PairBatch]:
        """All dev batches."""
        return _loader(_Dev(self._source, self._dev))

    def state_dict(self) -> dict[str, Any]:
        """The step to go on from."""
        return {"next_step": self.trainer.global_step if self.trainer else self._next}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved step."""
        self._next = state_dict["next_step"]


def _loader(data: torch.utils.data.Dataset[PairBatch]) -> DataLoader[PairBatch]:
    """A loader of ready batches that leaves the global random state, and so dropout, alone."""
    return DataLoader(data, batch_size=None, generator=torch.Generator())
