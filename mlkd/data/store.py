"""Pair store: cleaned, split, deduplicated parallel pairs in memory-mapped files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlkd.config.labelled import Task
from mlkd.output.errors import UserError

_ARRAYS = ("source", "translation", "group", "domain", "dev", "offsets", "language")


@dataclass(frozen=True)
class PairGroup:
    """Pairs of one corpus in one language direction."""

    corpus: str
    source_lang: str
    target_lang: str


class PairStore:
    """Pairs over a table of distinct sentences; every array is memory-mapped.

    Attributes:
        folder: Where the files are.
        fingerprint: SHA-256 of the content but for the domains,
        domain_hash: and of these.
        languages: Language codes.
        groups: Corpora in one language direction each.
        domains: Names of the domains.
        counts: What became of the rows of each group.
        source: Sentence index of each pair's source ``(n,)``.
        translation: Sentence index of its translation ``(n,)``.
        group: Index into ``groups`` ``(n,)``.
        domain: Index into ``domains`` ``(n,)``.
        dev: Whether the pair is held out ``(n,)``.
        offsets: Start of each sentence's UTF-8 bytes, and the end of the last.
        language: Index into ``languages`` of each sentence ``(n_sentences,)``.
        task: What labelled text teaches; None of parallel pairs.
        value: Index of its label, or score from 0 to 1, of each row ``(n,)``; None of pairs.
    """

    source: np.ndarray
    translation: np.ndarray
    group: np.ndarray
    domain: np.ndarray
    dev: np.ndarray
    offsets: np.ndarray
    language: np.ndarray

    def __init__(self, folder: Path, meta: dict[str, Any]) -> None:
        """Map the files of a complete folder; users call :meth:`open`."""
        self.folder = folder
        self.fingerprint: str = meta["fingerprint"]
        self.domain_hash: str = meta["domain_hash"]
        self.languages: list[str] = meta["languages"]
        self.domains: list[str] = meta["domains"]
        self.groups = [PairGroup(**group) for group in meta["groups"]]
        self.counts: list[dict[str, Any]] = meta["counts"]
        for name in _ARRAYS:
            setattr(self, name, np.load(folder / f"{name}.npy", "r", allow_pickle=False))
        task: dict[str, Any] | None = meta.get("task")
        self.task: Task | None = None
        self.value: np.ndarray | None = None
        if task is not None:
            self.task = Task(task["kind"], tuple(task["labels"]))
            self.value = np.load(folder / "value.npy", "r", allow_pickle=False)
        # Plain views: items and slices of np.memmap itself are several times as slow.
        self._text = np.asarray(np.memmap(folder / "text.bin", np.uint8, mode="r"))
        self._offsets = np.asarray(self.offsets)

    @classmethod
    def open(cls, folder: Path) -> PairStore:
        """Open a folder written by :func:`mlkd.data.pairs.prepare_pairs`.

        Raises:
            UserError: The folder is incomplete.
        """
        try:
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            for name, size in meta["sizes"].items():
                if (folder / name).stat().st_size != size:
                    raise ValueError(f"{name} is not {size} bytes long")
            return cls(folder, meta)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder}: not a complete pair store ({error})") from None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def n_sentences(self) -> int:
        """Number of distinct sentences."""
        return len(self.language)

    def train_pairs(self) -> np.ndarray:
        """Indices of the training pairs."""
        return np.flatnonzero(~self.dev)

    def dev_pairs(self) -> np.ndarray:
        """Indices of the held-out pairs."""
        return np.flatnonzero(self.dev)

    def text(self, index: int) -> str:
        """One sentence."""
        start, end = self._offsets[index], self._offsets[int(index) + 1]
        return self._text[start:end].tobytes().decode()

    def texts(self, indices: np.ndarray) -> list[str]:
        """Sentences of some indices."""
        starts = self.offsets[indices].tolist()
        ends = self.offsets[np.asarray(indices, np.int64) + 1].tolist()
        places = zip(starts, ends, strict=True)
        return [self._text[start:end].tobytes().decode() for start, end in places]
