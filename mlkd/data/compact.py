"""Second pass: distinct pairs over distinct sentences, from what the first pass left on disk.

What grows with the number of pairs is on disk and gone through in chunks, but for three bytes a
pair (whether it is kept, and whether each of its sides is used) and the hashes of the sentences of
dev pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from mlkd.data.collect import ROW, CorpusPart
from mlkd.data.distinct import first_places
from mlkd.storage.files import new_array, take_space

_CHUNK = 1 << 16
"""Rows that are in memory at once."""
_COPIED = "group", "domain", "dev", "value"


def compact(
    folder: Path, sources: list[CorpusPart], languages: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Keep each pair and each sentence once, in reading order, and write the arrays.

    Returns:
        Training pairs and dev pairs of each source.
    """
    rows = _Rows(folder / "spool.rows")
    counts = np.zeros((2, len(sources)), int)
    if rows.number:
        with first_places(rows.sentences(), 2 * rows.number, folder) as first:
            kept = _distinct(rows, first, folder, sources)
            _hold_out(rows, kept, sources)
            used = np.zeros(2 * rows.number, bool)
            for part, _ in rows:
                used[first[_sides(part)].reshape(-1, 2)[kept[part]]] = True
            _write_sentences(rows, used, folder, sources, languages)
            counts = _write_pairs(rows, kept, used, first, folder, sources)
    rows.path.unlink()
    (folder / "spool.text").unlink()
    return counts[0], counts[1]


class _Rows:
    """The rows of the first pass, chunk by chunk, as often as wanted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = path.stat().st_size // ROW.itemsize

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Which rows, and the rows."""
        with self.path.open("rb") as file:
            for start in range(0, self.number, _CHUNK):
                rows = np.fromfile(file, ROW, _CHUNK)
                yield slice(start, start + len(rows)), rows

    def sentences(self) -> Iterator[np.ndarray]:
        """Hashes of both sides of each row, one after the other."""
        return (rows["sentences"].ravel() for _, rows in self)


def _sides(rows: slice) -> slice:
    """Sides 2i and 2i + 1 are those of row i, as in ``spool.text``."""
    return slice(2 * rows.start, 2 * rows.stop)


def _distinct(
    rows: _Rows, first: np.ndarray, folder: Path, sources: list[CorpusPart]
) -> np.ndarray:
    """Which rows ``(n,)`` are the first with their two sentences."""

    def keys() -> Iterable[np.ndarray]:
        for part, _ in rows:
            sides = first[_sides(part)].reshape(-1, 2).astype(np.uint64)
            yield sides[:, 0] << np.uint64(32) | sides[:, 1]

    kept = np.zeros(rows.number, bool)
    with first_places(keys(), rows.number, folder) as first_row:
        for part, chunk in rows:
            kept[part] = first_row[part] == np.arange(part.start, part.stop)
            _count(sources, "duplicate", chunk["group"][~kept[part]])
    return kept


def _hold_out(rows: _Rows, kept: np.ndarray, sources: list[CorpusPart]) -> None:
    """Training must see neither side of a dev pair, under whatever other source sentence."""
    found = [np.unique(chunk["forms"][chunk["dev"] & kept[part]]) for part, chunk in rows]
    held_out = np.unique(np.concatenate(found))
    if not len(held_out):
        return
    for part, chunk in rows:
        place = np.searchsorted(held_out, chunk["forms"])
        place[place == len(held_out)] = 0
        seen = (held_out[place] == chunk["forms"]).any(axis=1) & kept[part] & ~chunk["dev"]
        _count(sources, "sentence of a dev pair", chunk["group"][seen])
        kept[part] &= ~seen


def _write_sentences(
    rows: _Rows, used: np.ndarray, folder: Path, sources: list[CorpusPart], languages: list[str]
) -> None:
    """Copy the texts of the used sides to ``text.bin``, with their offsets and languages."""
    number = int(np.count_nonzero(used))
    codes = np.array(
        [(languages.index(x.source_lang), languages.index(x.target_lang)) for x in sources],
        np.uint8,
    )
    offsets = new_array(folder / "offsets.npy", np.int64, (number + 1,))
    language = new_array(folder / "language.npy", np.uint8, (number,))
    offsets[0] = done = 0
    with (folder / "spool.text").open("rb") as spool, (folder / "text.bin").open("wb") as file:
        for part, chunk in rows:
            chosen = used[_sides(part)]
            sizes = chunk["sizes"].ravel().astype(np.int64)
            text = np.frombuffer(spool.read(int(sizes.sum())), np.uint8)
            file.write(text[np.repeat(chosen, sizes)].tobytes())
            end = done + int(np.count_nonzero(chosen))
            offsets[done + 1 : end + 1] = offsets[done] + np.cumsum(sizes[chosen])
            language[done:end] = codes[chunk["group"]].ravel()[chosen]
            done = end
    offsets.flush()
    language.flush()


def _write_pairs(
    rows: _Rows,
    kept: np.ndarray,
    used: np.ndarray,
    first: np.ndarray,
    folder: Path,
    sources: list[CorpusPart],
) -> np.ndarray:
    """Write the arrays of the kept rows; count training and dev pairs ``(2, sources)``."""
    total = int(np.count_nonzero(kept))
    labelled = any(source.labelled for source in sources)
    copied = [name for name in _COPIED if labelled or name != "value"]
    arrays = {name: new_array(folder / f"{name}.npy", ROW[name], (total,)) for name in copied}
    for name in ("source", "translation"):
        arrays[name] = new_array(folder / f"{name}.npy", np.uint32, (total,))
    scratch = folder / "number.scratch"
    with scratch.open("wb+") as file:
        take_space(file.fileno(), 4 * len(used))
    number = np.memmap(scratch, np.uint32, "r+", shape=used.shape)
    before = 0
    for start in range(0, len(used), _CHUNK):
        part = used[start : start + _CHUNK]
        number[start : start + _CHUNK] = before + np.cumsum(part) - 1
        before += int(np.count_nonzero(part))
    counts, done = np.zeros((2, len(sources)), int), 0
    for where, chunk in rows:
        chosen = kept[where]
        end = done + int(np.count_nonzero(chosen))
        sides = number[first[_sides(where)].reshape(-1, 2)[chosen]]
        arrays["source"][done:end], arrays["translation"][done:end] = sides[:, 0], sides[:, 1]
        for name in copied:
            arrays[name][done:end] = chunk[name][chosen]
        for held, count in enumerate(counts):
            groups = chunk["group"][chosen & (chunk["dev"] == held)]
            count += np.bincount(groups, minlength=len(sources))
        done = end
    for array in arrays.values():
        array.flush()
    scratch.unlink()
    return counts


def _count(sources: list[CorpusPart], reason: str, groups: np.ndarray) -> None:
    for source, number in zip(sources, np.bincount(groups, minlength=len(sources)), strict=True):
        if number:
            source.dropped[reason] += int(number)
