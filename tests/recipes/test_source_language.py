"""The teacher reads the source side of the pairs; evaluation has to agree on which that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlkd.config.inputs import DataConfig
from mlkd.data.pairs import prepare_pairs
from mlkd.metrics.sets import EvalSet
from mlkd.output.errors import UserError
from mlkd.recipes.inputs import _check_sources


def test_dev_bitext_with_another_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("\n".join(f"Regen {i}\tPluie {i}" for i in range(100)))
    corpus = {"format": "tsv", "path": "x.tsv", "source": "de", "targets": ["fr"]}
    data = {"root": str(tmp_path), "dev_fraction": 0.2, "corpora": {"c": corpus}}
    pairs = prepare_pairs(DataConfig.model_validate(data), [], tmp_path / "cache")
    sides = ("a",), ("b",), None
    german = EvalSet("right", "bitext", "dev", "de-fr", *sides, source="de")
    english = EvalSet("wrong", "bitext", "dev", "en-fr", *sides)
    test = EvalSet("held", "bitext", "test", "en-fr", *sides)
    without = EvalSet("free", "bitext", "dev", "fr-es", *sides)
    _check_sources([german, test, without], pairs)
    with pytest.raises(UserError) as caught:
        _check_sources([german, english], pairs)
    assert str(caught.value) == (
        "eval.sets.wrong.source=en: the teacher reads the source of the corpora; allowed: de"
    )
