"""Equal keys among more of them than should be in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile, mkstemp

import numpy as np

from mlkd.storage.files import take_space

_KEYED = np.dtype([("key", "<u8"), ("place", "<u4")])
_BUCKET = 1 << 18
"""About so many keys are sorted at once."""
_MOST_BUCKETS = 256
"""Open files."""
_MIX = np.uint64(0x9E3779B97F4A7C15)


@contextmanager
def first_places(keys: Iterable[np.ndarray], number: int, folder: Path) -> Iterator[np.ndarray]:
    """For each key, the place of the first key that equals it.

    Args:
        keys: Unsigned 64-bit keys in parts.
        number: How many there are together, less than 2**32.
        folder: Where the files go that stand in for memory.

    Yields:
        Places ``(number,)``, memory-mapped until the context ends.
    """
    handle, name = mkstemp(dir=folder, suffix=".scratch")
    with open(handle, "rb+") as file:  # noqa: PTH123 - mkstemp has opened it
        take_space(handle, 4 * number)
        places = np.memmap(file, np.uint32, "r+", shape=(number,))
    try:
        with ExitStack() as stack:
            count = min(_MOST_BUCKETS, number // _BUCKET + 1)
            buckets = [stack.enter_context(TemporaryFile(dir=folder)) for _ in range(count)]
            start = 0
            for part in keys:
                records = np.empty(len(part), _KEYED)
                records["key"] = part
                records["place"] = np.arange(start, start + len(part))
                start += len(part)
                bucket = ((part * _MIX) >> np.uint64(40)) % np.uint64(count)
                order = np.argsort(bucket, kind="stable")
                ends = np.cumsum(np.bincount(bucket.astype(np.int64), minlength=count))
                for rows, out in zip(np.split(records[order], ends[:-1]), buckets, strict=True):
                    out.write(rows.tobytes())
            for out in buckets:
                out.seek(0)
                records = np.frombuffer(out.read(), _KEYED)
                _, index, inverse = np.unique(
                    records["key"], return_index=True, return_inverse=True
                )
                places[records["place"]] = records["place"][index[inverse]]
        yield places
    finally:
        Path(name).unlink()
