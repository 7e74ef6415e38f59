"""Duplicates found in buckets are those found in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlkd.data import distinct
from mlkd.data.distinct import first_places


@pytest.mark.parametrize("bucket", [10, 1 << 18])
def test_first_places_are_those_of_a_sort_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: int
) -> None:
    monkeypatch.setattr(distinct, "_BUCKET", bucket)
    keys = np.random.default_rng(0).integers(0, 500, 1000).astype(np.uint64) << np.uint64(50)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    with first_places(np.split(keys, [0, 7, 300, 300, 999]), len(keys), tmp_path) as places:
        assert np.array_equal(places, first[inverse])
    assert not list(tmp_path.iterdir())
