"""What a link reads: its batches, its dev pairs, and the target vectors of their sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from mlkd.config.inputs import DataConfig
from mlkd.config.stages import StageSettings
from mlkd.config.training import TrainerConfig
from mlkd.data.plan import BatchPlan, GroupedPlan, MixedPlan, group_part, labels
from mlkd.data.shares import share
from mlkd.data.store import PairStore
from mlkd.data.tokens import TokenStore
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.output.errors import UserError
from mlkd.stages.signals import Vectors
from mlkd.targets.cache import Targets, compute_targets
from mlkd.targets.live import LiveEncoder

_CHUNK = 1 << 18


@dataclass(frozen=True)
class FrozenFolder:
    """Folder of an encoder that is not trained, and what progress bars call it."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Reads:
    """What a link reads, as far as settings decide it.

    Attributes:
        name: Of the link, for messages.
        settings: Of the link.
        seed: Of the link; decides the order of the pairs.
        encoders: Its inputs by role, but for a new student.
        data: Mixing and limits.
        trainer: Precision and number of processes.
        pairs: The pairs.
        cache: Folder of all caches.
    """

    name: str
    settings: StageSettings
    seed: int
    encoders: Mapping[str, FrozenFolder]
    data: DataConfig
    trainer: TrainerConfig
    pairs: PairStore
    cache: Path

    def batch_plan(self, tokens: TokenStore) -> tuple[BatchPlan, int]:
        """Batches of the link and the number of its steps."""
        train = self._share()
        length = _longer_side(self.pairs, tokens, train)
        plan: BatchPlan
        if (grouping := self.settings.grouping) is None:
            plan = MixedPlan(
                train,
                np.asarray(self.pairs.group[train]),
                length,
                batch_size=self.settings.batch_size,
                mixing=self.data.mixing,
                temperature=self.data.temperature,
                seed=self.seed,
            )
        else:
            label, names = labels(self.pairs, train, grouping.by)
            plan = GroupedPlan(
                train,
                label,
                length,
                names=names,
                mode=grouping.mode,
                batch_size=self.settings.batch_size,
                seed=self.seed,
            )
        if plan.part % self.trainer.processes:
            raise UserError(
                f"stages.{self.name}: a batch of {plan.batch_size} pairs, all that there are, "
                f"cannot be shared evenly by {self.trainer.processes} processes"
            )
        steps = max(1, round(self.settings.epochs * plan.steps_per_epoch))
        return plan, min(steps, self.settings.max_steps or steps)

    def check_groups(self) -> None:
        """See, before any link trains, whether there are batches by group.

        Raises:
            UserError: A group has no pair, or too few places in a batch.
        """
        if (grouping := self.settings.grouping) is None:
            return
        label, names = labels(self.pairs, self._share(), grouping.by)
        sizes, name = np.bincount(label, minlength=len(names)), f"stages.{self.name}"
        try:
            part = group_part(sizes, names, grouping.mode, self.settings.batch_size)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        largest = f", all that the largest {grouping.by} has" if part == sizes.max() else ""
        of = f"{'each' if grouping.mode == 'all' else 'one'} {grouping.by}{largest}"
        processes, least = self.trainer.processes, self.settings.least_of_group
        if part % processes:
            reason = f"cannot be shared evenly by {processes} processes"
        elif part // processes < least:
            reason = f"are too few: {least} are needed" + " on each process" * (processes > 1)
        else:
            return
        raise UserError(f"{name}: the pairs of {of} in a batch, {part}, {reason}")

    def dev_pairs(self, tokens: TokenStore) -> np.ndarray:
        """Held-out pairs that select: a random part, the same for every run, sorted by length."""
        dev = np.random.default_rng(0).permutation(self.pairs.dev_pairs())
        dev = dev[: self.data.max_dev_pairs]
        return dev[np.argsort(_longer_side(self.pairs, tokens, dev), kind="stable")]

    def sentences(self, vectors: Vectors, *used: np.ndarray) -> np.ndarray:
        """Sentences ``(n,)`` whose vectors the link asks for when it meets some pairs."""
        wanted = np.zeros(self.pairs.n_sentences, bool)
        for part in used:
            wanted[self.pairs.source[part]] = True
            if vectors.translation == "translation":
                wanted[self.pairs.translation[part]] = True
        return np.flatnonzero(wanted).astype(np.uint32)

    def targets(self, vectors: Vectors, sentences: np.ndarray) -> Targets:
        """Vectors of sentences, from the cache where they are known.

        Args:
            vectors: Whose, and which.
            sentences: Sentence indices ``(n,)``, distinct.
        """
        source = self.encoders[vectors.role]
        encoder = self._open(vectors.role, embeddings_only=not vectors.layers)
        label = source.name if vectors.layers else f"{source.name} embeddings"
        return compute_targets(
            encoder, self.pairs.texts, sentences, self.pairs.n_sentences, self.cache, label
        )

    def live(self, role: str, tokenizer: PreTrainedTokenizerBase) -> LiveEncoder:
        """The frozen encoder of a role, to be run in the step on what a tokenizer writes."""
        return LiveEncoder.of(self._open(role), tokenizer)

    def _open(self, role: str, embeddings_only: bool = False) -> FrozenEncoder:
        return FrozenEncoder.open(
            self.encoders[role].folder,
            max_tokens=self.data.max_tokens,
            accelerator=self.trainer.accelerator,
            precision=self.trainer.precision,
            embeddings_only=embeddings_only,
        )

    def _share(self) -> np.ndarray:
        """Training pairs of the link's share."""
        fraction = self.settings.fraction
        if not len(drawn := share(self.pairs, fraction)):
            count = len(self.pairs.train_pairs())
            raise UserError(f"stages.{self.name}.fraction={fraction}: no pair is left of {count}")
        return drawn


def _longer_side(pairs: PairStore, tokens: TokenStore, which: np.ndarray) -> np.ndarray:
    """Tokens of the longer side of each pair, looked up in chunks to save memory."""
    longer = np.empty(len(which), np.uint16)
    for start in range(0, len(which), _CHUNK):
        part = which[start : start + _CHUNK]
        sides = [side[part].astype(np.int64) for side in (pairs.source, pairs.translation)]
        one, other = (tokens.offsets[side + 1] - tokens.offsets[side] for side in sides)
        longer[start : start + _CHUNK] = np.maximum(one, other)
    return longer
