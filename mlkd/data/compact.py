"""Second pass: distinct pairs over distinct sentences, from what the first pass left on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlkd.data.collect import ROW, Source

_CHUNK = 1 << 16
"""Sentences that are copied at once."""


def compact(
    folder: Path, sources: list[Source], languages: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Keep each pair and each sentence once, in reading order, and write the arrays.

    Returns:
        Training pairs and dev pairs of each source.
    """
    spool = folder / "spool.rows"
    if spool.stat().st_size == 0:
        return np.zeros(len(sources), int), np.zeros(len(sources), int)
    rows = np.memmap(spool, ROW, mode="r")
    group, dev = np.array(rows["group"]), np.array(rows["dev"])
    # Rows 2i and 2i+1 of what follows are the sides of pair i, as in spool.text.
    sizes = rows["sizes"].ravel().astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    _, first, sentence = np.unique(rows["sentences"], return_index=True, return_inverse=True)
    sides = sentence.reshape(-1, 2)

    kept = np.zeros(len(rows), bool)
    kept[np.unique(sides[:, 0] << 32 | sides[:, 1], return_index=True)[1]] = True
    _count(sources, "duplicate", group[~kept])
    # Training must see neither side of a dev pair, under whatever other English sentence.
    held_out = np.unique(rows["forms"][dev & kept])
    seen = kept & ~dev & np.isin(rows["forms"], held_out).any(axis=1)
    _count(sources, "sentence of a dev pair", group[seen])
    kept &= ~seen

    used = np.unique(sides[kept])
    used = used[np.argsort(first[used])]
    number = np.zeros(len(first), np.uint32)
    number[used] = np.arange(len(used))
    first = first[used]
    offsets = np.concatenate([[0], np.cumsum(sizes[first])])
    _copy_texts(folder, starts[first], offsets)
    codes = np.array(
        [(languages.index(x.source_lang), languages.index(x.target_lang)) for x in sources],
        np.uint8,
    )
    arrays = {
        "source": number[sides[kept, 0]],
        "translation": number[sides[kept, 1]],
        "group": group[kept],
        "domain": rows["domain"][kept],
        "dev": dev[kept],
        "offsets": offsets,
        "language": codes[group[first // 2], first % 2],
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    spool.unlink()
    (folder / "spool.text").unlink()
    counts = [
        np.bincount(group[kept & (dev == held)], minlength=len(sources)) for held in (False, True)
    ]
    return counts[0], counts[1]


def _count(sources: list[Source], reason: str, groups: np.ndarray) -> None:
    for source, number in zip(sources, np.bincount(groups, minlength=len(sources)), strict=True):
        if number:
            source.dropped[reason] += int(number)


def _copy_texts(folder: Path, starts: np.ndarray, offsets: np.ndarray) -> None:
    """Gather the chosen sentences from ``spool.text`` into ``text.bin``, in chunks."""
    spool = np.memmap(folder / "spool.text", np.uint8, mode="r")
    with (folder / "text.bin").open("wb") as file:
        for begin in range(0, len(starts), _CHUNK):
            ends = offsets[begin : begin + _CHUNK + 1]
            shift = starts[begin : begin + _CHUNK] - ends[:-1]
            index = np.arange(ends[0], ends[-1]) + np.repeat(shift, np.diff(ends))
            file.write(spool[index].tobytes())
