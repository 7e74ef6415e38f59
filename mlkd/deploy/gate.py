"""What keeps a format out: vectors or scores that differ from the student's by too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mlkd.config.evaluation import EvalConfig, EvalSetConfig
from mlkd.metrics.scoring import Encode, Scores, score, select_value
from mlkd.metrics.sets import EvalSet, load_sets, set_sentences
from mlkd.metrics.similarity import unit
from mlkd.output.errors import UserError

_COMPARED = 512
"""Sentences whose vectors are compared; a wrong weight shows in the first."""


class Refused(UserError):
    """A format, or weights of it, cannot hold the student or differ too much; others may not."""


@dataclass(frozen=True)
class Reference:
    """The student that exports are compared with.

    Attributes:
        whole: ``encode`` of the student as it was trained.
        written: Of what is written; another one where the vocabulary is trimmed.
        trimmed: Whether it is.
        sets: Evaluation sets, in the languages that are kept.
        known: Scores of ``whole`` that its run measured, by whoever made them in fp32; or None.
        bootstrap: Resamples of the STS intervals; 0 = none.
        max_loss: Points of dev score that may be lost.
        kinds: Of shorter vectors that are scored as well.
    """

    whole: Encode
    written: Encode
    trimmed: bool
    sets: Sequence[EvalSet]
    known: Scores | None
    bootstrap: int
    max_loss: float
    kinds: Sequence[str]

    @cached_property
    def texts(self) -> list[str]:
        """Sentences of five languages and all lengths, the same for every export."""
        demo = EvalSetConfig(
            kind="bitext", split="test", format="demo", languages=["de", "fr", "es", "tr"]
        )
        found = sorted(set_sentences(load_sets(EvalConfig(sets={"demo": demo}))))
        spread = np.linspace(0, len(found) - 1, min(_COMPARED, len(found))).astype(int)
        # A sentence that is cut, one of a single letter, and letters that no vocabulary knows.
        # And a word without spaces, longer than the longest that some tokenizers read.
        odd = [" ".join(found[:60]), "a", "ꙮ ᚠᚢᚦ 漢字", "มนุษย์ทั้งหลายเกิดมามีอิสระ" * 5]
        return [found[i] for i in spread] + odd

    @cached_property
    def vectors(self) -> np.ndarray:
        """Vectors of ``texts`` ``(n, d)``."""
        return np.asarray(self.written(self.texts))

    @cached_property
    def dev(self) -> float:
        """The selecting dev score of the student as it was trained."""
        dev = [item for item in self.sets if item.split == "dev"]
        if self.known is None or not all(_is_of(self.known, item) for item in dev):
            return select_value(score(self.whole, dev, bootstrap=0))
        kept = {(item.name, item.pair) for item in dev}
        entries = {}
        for name, entry in self.known["sets"].items():
            pairs = {pair: found for pair, found in entry["pairs"].items() if (name, pair) in kept}
            entries[name] = entry | {"pairs": pairs}
        return select_value({"sets": entries})

    def is_scored(self, scores: Scores) -> bool:
        """Whether scores are of exactly these sets."""
        pairs = sum(len(entry["pairs"]) for entry in scores["sets"].values())
        return pairs == len(self.sets) and all(_is_of(scores, item) for item in self.sets)

    def compare(
        self, encode: Encode, allowed: float | None, like: Encode | None = None
    ) -> dict[str, Any]:
        """Compare vectors with those of what was written.

        Args:
            encode: The export.
            allowed: Largest difference of a coordinate of two unit vectors, 0 = bit-equal; None
                where scores decide.
            like: What it is compared with; None = what was written of the student.

        Returns:
            ``max_difference`` of a coordinate and ``cosine`` (``mean``, ``min``) of unit vectors.

        Raises:
            Refused: The difference is larger.
        """
        found = np.asarray(encode(self.texts))
        expected = self.vectors if like is None else np.asarray(like(self.texts))
        difference = float(np.abs(unit(found) - unit(expected)).max())
        equal = np.array_equal(found, expected) if allowed == 0 else True
        if not (equal and np.isfinite(found).all() and (allowed is None or difference <= allowed)):
            raise Refused(
                f"its vectors differ from the student's by up to {difference:.2g}; "
                f"allowed: {allowed or 0:g}"
            )
        cosine = (unit(found) * unit(expected)).sum(1)
        return {
            "max_difference": difference,
            "cosine": {"mean": float(cosine.mean()), "min": float(cosine.min())},
        }

    def score(self, encode: Encode) -> Scores:
        """Scores of an export on all sets (see :func:`mlkd.metrics.scoring.score`)."""
        return score(encode, self.sets, bootstrap=self.bootstrap)

    def check_loss(self, scores: Scores) -> dict[str, float]:
        """Compare an export's dev score with that of the student.

        Returns:
            ``student`` and ``export``.

        Raises:
            Refused: It loses more points than allowed.
        """
        dev = {"student": self.dev, "export": select_value(scores)}
        loss = dev["student"] - dev["export"]
        if loss > self.max_loss:
            raise Refused(
                f"it loses {loss:.2f} points on dev ({dev['student']:.2f} to "
                f"{dev['export']:.2f}); max_loss={self.max_loss:g}"
            )
        return dev


def _is_of(scores: Scores, item: EvalSet) -> bool:
    """Whether scores are of exactly the sentences of a set."""
    entry = scores["sets"].get(item.name, {})
    known: dict[str, str] = entry.get("content", {})
    return known.get(item.pair) == item.content and item.pair in entry["pairs"]
