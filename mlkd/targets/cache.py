"""Target vectors on disk: each distinct sentence is encoded once per encoder."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mlkd.encoders.frozen import FrozenEncoder
from mlkd.storage.files import digest, new_array, remove_folder, replacing_folder
from mlkd.storage.lock import Lock
from mlkd.storage.seals import Damaged, check_seal, seal

log = logging.getLogger(__name__)

_CHUNK = 1 << 18
"""Sentences whose texts or keys are handled at once."""
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
    place: np.ndarray
    """Row of each sentence ``(n_sentences,)`` in all segments one after the other; -1: none."""

    @cached_property
    def _starts(self) -> np.ndarray:
        return _starts(self.segments)

    def vectors(self, sentences: np.ndarray) -> np.ndarray:
        """float32 vectors ``(m, d)`` of sentence indices ``(m,)``."""
        place, starts = self.place[sentences], self._starts
        if (place < 0).any():
            raise KeyError(f"sentence {int(sentences[place < 0][0])} has no target vector")
        which = np.searchsorted(starts, place, side="right") - 1
        result = np.empty((len(sentences), self.segments[0].vectors.shape[1]), np.float32)
        for number in np.unique(which):
            mine = which == number
            result[mine] = self.segments[number].vectors[place[mine] - starts[number]]
        return result


def sentence_keys(sentences: list[str]) -> np.ndarray:
    """64-bit hashes of sentences ``(n,)``."""
    raw = b"".join(hashlib.blake2b(s.encode(), digest_size=8).digest() for s in sentences)
    return np.frombuffer(raw, np.uint64)


def compute_targets(
    encoder: FrozenEncoder,
    texts: Callable[[np.ndarray], list[str]],
    indices: np.ndarray,
    n_sentences: int,
    cache: Path,
    name: str,
) -> Targets:
    """Look up the vectors of some sentences and encode those that no earlier job has encoded.

    A job that wants what another is just computing waits for it.

    Args:
        encoder: Where vectors come from; its fingerprint names the cache folder.
        texts: Gives the sentences of some indices; never asked for all at once.
        indices: Which are wanted, distinct ``(n,)``.
        n_sentences: Size of the sentence table.
        cache: Folder of all caches.
        name: Shown in the progress bar.
    """
    folder = cache / f"targets-{digest(encoder.fingerprint)}"
    keys = np.empty(len(indices), np.uint64)
    for start in range(0, len(keys), _CHUNK):
        keys[start : start + _CHUNK] = sentence_keys(texts(indices[start : start + _CHUNK]))
    with Lock(cache / f"{folder.name}.lock", waiting_for=f"target vectors of {name}"):
        segments = _open_segments(folder)
        missing = np.flatnonzero(_places(segments, keys) < 0)
        if len(missing):
            missing = missing[np.argsort(keys[missing], kind="stable")]
            new = np.diff(keys[missing], prepend=~keys[missing[:1]]) != 0  # two of one text
            fresh = missing[new]
            for start in range(0, len(fresh), _SEGMENT):
                part = fresh[start : start + _SEGMENT]
                write_segment(encoder, texts(indices[part]), keys[part], folder, name)
            segments = _open_segments(folder)
    place = np.full(n_sentences, -1, np.int32)
    place[indices] = _places(segments, keys)
    return Targets(tuple(segments), place)


def _starts(segments: Sequence[Segment]) -> np.ndarray:
    """Where each segment starts if all stand one after the other."""
    return np.cumsum([0, *(len(segment.keys) for segment in segments)])[:-1]


def _places(segments: Sequence[Segment], keys: np.ndarray) -> np.ndarray:
    """Place of each key in all segments one after the other, -1 where it is in none.

    Segments hold ranges of keys, so that sorted keys are looked up in few of them.
    """
    result = np.full(len(keys), -1, np.int32)
    starts = _starts(segments)
    for begin in range(0, len(keys), _CHUNK):
        order = begin + np.argsort(keys[begin : begin + _CHUNK])
        ordered = keys[order]
        for segment, start in zip(segments, starts, strict=True):
            low = np.searchsorted(ordered, segment.keys[0])
            high = np.searchsorted(ordered, segment.keys[-1], side="right")
            rows = segment.rows(ordered[low:high])
            result[order[low:high][rows >= 0]] = start + rows[rows >= 0]
    return result


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
