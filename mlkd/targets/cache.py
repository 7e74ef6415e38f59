"""Target vectors on disk: each distinct sentence is encoded once per encoder."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlkd.files import digest, new_array, remove_folder, replacing_folder
from mlkd.integrity import Damaged, check_seal, seal
from mlkd.runs.lock import Lock
from mlkd.targets.encoder import FrozenEncoder

log = logging.getLogger(__name__)

_SEGMENT = 1 << 18
"""Sentences a segment: so many are lost at most when the process is killed."""


@dataclass(frozen=True)
class Segment:
    """Vectors written in one go: sorted sentence keys and their rows, both memory-mapped."""

    keys: np.ndarray
    """Sorted 64-bit sentence hashes ``(n,)``."""
    vectors: np.ndarray
    """float16 ``(n, d)``, row i belongs to ``keys[i]``."""

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """Row of each key ``(m,)``, -1 where it is not in this segment."""
        position = np.searchsorted(self.keys, keys)
        position[position == len(self.keys)] = 0
        return np.where(self.keys[position] == keys, position, -1)


@dataclass(frozen=True)
class Targets:
    """Target vectors of a table of sentences, looked up by sentence index."""

    segments: tuple[Segment, ...]
    segment: np.ndarray
    """Segment of each sentence ``(n_sentences,)``, -1 where it has no vector."""
    row: np.ndarray
    """Row in that segment ``(n_sentences,)``."""

    def vectors(self, sentences: np.ndarray) -> np.ndarray:
        """float32 vectors ``(m, d)`` of sentence indices ``(m,)``."""
        which, rows = self.segment[sentences], self.row[sentences]
        result = np.empty((len(sentences), self.segments[0].vectors.shape[1]), np.float32)
        for number, segment in enumerate(self.segments):
            mine = which == number
            if mine.any():
                result[mine] = segment.vectors[rows[mine]]
        if (which < 0).any():
            raise KeyError(f"sentence {int(sentences[which < 0][0])} has no target vector")
        return result


def sentence_keys(sentences: list[str]) -> np.ndarray:
    """64-bit hashes of sentences ``(n,)``."""
    raw = b"".join(hashlib.blake2b(s.encode(), digest_size=8).digest() for s in sentences)
    return np.frombuffer(raw, np.uint64)


def compute_targets(
    encoder: FrozenEncoder,
    texts: list[str],
    indices: np.ndarray,
    n_sentences: int,
    cache: Path,
    name: str,
) -> Targets:
    """Look up the vectors of some sentences and encode those that no earlier job has encoded.

    A job that wants what another is just computing waits for it.

    Args:
        encoder: Where vectors come from; its fingerprint names the cache folder.
        texts: The sentences wanted.
        indices: Their index in the sentence table, same length.
        n_sentences: Size of that table.
        cache: Folder of all caches.
        name: Shown in the progress bar.
    """
    folder = cache / f"targets-{digest(encoder.fingerprint)}"
    keys = sentence_keys(texts)
    with Lock(cache / f"{folder.name}.lock", waiting_for=f"target vectors of {name}"):
        segments = _open_segments(folder)
        missing = np.ones(len(keys), bool)
        for segment in segments:
            missing &= segment.rows(keys) < 0
        if missing.any():
            _, first = np.unique(keys[missing], return_index=True)
            fresh = np.flatnonzero(missing)[first]
            for start in range(0, len(fresh), _SEGMENT):
                part = fresh[start : start + _SEGMENT]
                write_segment(encoder, [texts[i] for i in part], keys[part], folder, name)
            segments = _open_segments(folder)
    which = np.full(n_sentences, -1, np.int16)
    row = np.zeros(n_sentences, np.int64)
    for number, segment in enumerate(segments):
        found = segment.rows(keys)
        which[indices[found >= 0]] = number
        row[indices[found >= 0]] = found[found >= 0]
    return Targets(tuple(segments), which, row)


def write_segment(
    encoder: FrozenEncoder, texts: list[str], keys: np.ndarray, folder: Path, name: str
) -> None:
    """Encode sentences, whose keys are sorted and distinct, into a new segment of the cache."""
    target = folder / f"segment-{digest([str(keys[0]), str(keys[-1]), len(keys)])}"
    with replacing_folder(target) as part:
        np.save(part / "keys.npy", keys)
        shape = (len(keys), encoder.dimension)
        vectors = new_array(part / "vectors.npy", np.float16, shape)

        def write(rows: np.ndarray, values: np.ndarray) -> None:
            vectors[rows] = values

        encoder.encode(texts, description=f"vectors of {name}", write=write)
        vectors.flush()
        seal(part, f"{folder.name}/{target.name}")


def _open_segments(folder: Path) -> list[Segment]:
    """Open every segment; damaged ones are removed and said."""
    segments = []
    for path in sorted(folder.glob("segment-*")):
        try:
            check_seal(path, f"{folder.name}/{path.name}")
        except Damaged as error:
            log.warning("%s; its vectors are computed again", error)
            remove_folder(path)
            continue
        keys, vectors = (
            np.load(path / f"{x}.npy", mmap_mode="r", allow_pickle=False)
            for x in ("keys", "vectors")
        )
        segments.append(Segment(keys, vectors))
    return segments
