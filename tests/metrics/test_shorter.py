"""Shorter and coarser vectors: what is compared, what it takes, what its scores are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sentence_transformers.util import quantize_embeddings

from mlkd.config.commands import EvaluateConfig
from mlkd.deploy import encode as shipped
from mlkd.metrics.scoring import score
from mlkd.metrics.sets import EvalSet
from mlkd.metrics.shorter import Remembered, check_kinds, score_kinds, shortened, stored_bytes
from mlkd.metrics.similarity import cosines, unit
from mlkd.output.errors import UserError

ROWS = unit(np.random.default_rng(0).normal(size=(200, 32))).astype(np.float32)


def texts(count: int) -> tuple[str, ...]:
    return tuple(f"sentence {i}" for i in range(count))


def lookup(asked: list[str]) -> Any:
    """An encoder of :data:`ROWS` that writes down what it was asked."""

    def encode(sentences: Sequence[str]) -> np.ndarray:
        asked.extend(sentences)
        return ROWS[[int(sentence.split()[1]) for sentence in sentences]]

    return encode


@pytest.mark.parametrize("kind", ["16", "int8", "binary", "16-int8", "12-binary"])
def test_what_is_scored_is_what_an_index_compares(kind: str) -> None:
    """The shipped file's vectors have the cosines, and take the bytes, that are reported."""
    number, _, precision = kind.rpartition("-")
    if precision.isdigit():
        number, precision = precision, "float32"
    dimensions = int(number) if number else None
    stored = shipped.shorter(ROWS, dimensions, precision)
    assert stored[0].nbytes == stored_bytes(kind, 32)
    if precision == "binary":
        bits = np.unpackbits(stored.view(np.uint8) ^ 128, axis=1)[:, :dimensions]
        differ = (bits[:100] != bits[100:]).sum(1)
        expected = 1 - 2 * differ / bits.shape[1]
    else:
        numbers = stored.astype(np.float64)
        expected = (unit(numbers[:100]) * unit(numbers[100:])).sum(1)
    compared = shortened(ROWS, kind)
    # A number that lies between two bytes may be rounded either way.
    assert cosines(compared[:100], compared[100:]) == pytest.approx(expected, abs=1e-6, rel=1e-6)


def test_int8_uses_the_whole_range_of_each_vector() -> None:
    stored = shipped.shorter(ROWS, None, "int8")
    assert stored.dtype == np.int8
    assert (np.abs(stored.astype(int)).max(axis=1) == 127).all()
    coarse = np.rint(ROWS * 127)  # one scale for all: further off
    error, other = (np.abs(cosines(x, ROWS) - 1).mean() for x in (stored, coarse))
    assert error < other / 2


def test_binary_is_that_of_sentence_transformers() -> None:
    for rows in (ROWS, ROWS[:, :12]):
        found = shipped.shorter(rows, None, "binary")
        expected = quantize_embeddings(rows, precision="binary")
        assert found.dtype == expected.dtype == np.int8
        assert (found == expected).all()


@pytest.mark.parametrize("kind", ["8", "int8", "binary"])
def test_a_vector_of_nothing_is_like_nothing(kind: str) -> None:
    rows = np.array([[0.0] * 16, [np.nan] * 16, [1.0] * 16])
    found = shortened(rows, kind)
    assert not found[:2].any()
    assert found[2].all()
    for precision in ("float32", "int8"):
        assert not shipped.shorter(np.zeros((1, 16), np.float32), 8, precision).any()


def test_each_sentence_is_encoded_once_for_all_kinds() -> None:
    asked: list[str] = []
    gold = np.linspace(0, 5, 20)
    names = texts(40)
    sts = EvalSet("graded", "sts", "dev", "en-de", names[:20], names[20:], gold)
    bitext = EvalSet("found", "bitext", "test", "en-de", names[:20], names[20:], None)
    label = EvalSet("tone", "classification", "test", "en-en", names[:2], names[:2],
                    np.array([0.0, 1.0]), labels=("a", "b"))  # fmt: skip
    found = score_kinds(lookup(asked), [sts, bitext, label], ["16", "int8", "8-binary"])
    assert sorted(asked) == sorted(names)
    assert {kind: entry["bytes"] for kind, entry in found.items()} == {
        "float32": 128, "16": 64, "int8": 32, "8-binary": 1}  # fmt: skip
    whole = score(lookup([]), [sts, bitext], bootstrap=0)
    assert found["float32"]["scores"] == whole
    half = score(lambda part: lookup([])(part)[:, :16], [sts, bitext], bootstrap=0)
    assert found["16"]["scores"] == half != whole
    for entry in found.values():
        assert set(entry["scores"]["sets"]) == {"graded", "found"}


def test_what_is_remembered_is_not_asked_again() -> None:
    asked: list[str] = []
    encode = Remembered(lookup(asked))
    assert (encode(["sentence 1", "sentence 2", "sentence 1"]) == ROWS[[1, 2, 1]]).all()
    assert (encode(["sentence 2", "sentence 3"]) == ROWS[[2, 3]]).all()
    assert asked == ["sentence 1", "sentence 2", "sentence 3"]


def test_more_numbers_than_there_are_is_one_line() -> None:
    check_kinds(["32", "32-int8", "binary"], {"student": 32})
    with pytest.raises(UserError, match="vectors: 33-int8: vectors of the teacher have 32 numbers"):
        check_kinds(["16", "33-int8"], {"student": 64, "teacher": 32})


@pytest.mark.parametrize("wrong", [0, -5, True, 1.5, "int4", "int8-128", "", "128-", "-int8"])
def test_kinds_that_are_none_are_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError, match="vectors"):
        EvaluateConfig.model_validate({"model": "x", "eval": {"sets": {}}, "vectors": [wrong]})
