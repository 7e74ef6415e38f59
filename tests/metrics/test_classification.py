"""Classification: accuracy, macro-F1, intervals, and which heads are scored on which sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mlkd.config.evaluation import EvalConfig
from mlkd.encoders.head import Head
from mlkd.metrics.classification import classification_scores
from mlkd.metrics.scoring import score, select_value, share_of
from mlkd.metrics.sets import EvalSet, load_sets, set_sentences
from mlkd.metrics.summary import numbers, pair_scores
from mlkd.metrics.table import row_of, to_markdown
from mlkd.output.errors import UserError

ROWS = "very nice\tgood\nso so\tfair\nawful\tbad\nreally nice\tgood\n"
HEAD = Head(torch.eye(3), torch.zeros(3), ("bad", "fair", "good"))


def encode(texts: Any) -> np.ndarray:
    """Nice texts and awful ones lie where they should; the others are not understood."""
    places = {"nice": 2, "awful": 0}
    return np.stack([np.eye(3)[places.get(text.split()[-1], 0)] for text in texts])


def load(root: Path, **one: Any) -> list[EvalSet]:
    values = {"kind": "classification", "split": "test", "path": "{lang}.tsv", "languages": ["en"]}
    one = values | {"labels": ["good", "fair", "bad"]} | one
    read = {} if one.get("format") == "demo" else {"root": str(root)}
    return load_sets(EvalConfig.model_validate({**read, "sets": {"s": one}}))


def test_scores_by_hand() -> None:
    found = classification_scores(
        np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0]), 3, bootstrap=0
    )
    # F1 of the classes: 2·1/(2+2), 2·1/(1+2), 2·2/(3+2).
    assert found["accuracy"] == pytest.approx(100 * 4 / 6)
    assert found["macro_f1"] == pytest.approx(100 * (1 / 2 + 2 / 3 + 4 / 5) / 3)
    assert (found["low"], found["high"], found["n"]) == (None, None, 6)


def test_the_interval_is_that_of_a_binomial_share() -> None:
    gold = np.zeros(400, np.int64)
    predicted = (np.arange(400) >= 300).astype(np.int64)
    found = classification_scores(predicted, gold, 2, bootstrap=2000)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400) * 100
    assert found["low"] == pytest.approx(75 - half, abs=0.5)
    assert found["high"] == pytest.approx(75 + half, abs=0.5)


def test_a_set_is_scored_with_a_head_for_its_labels_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "en.tsv").write_text(ROWS)
    sets = load(tmp_path)
    assert sets[0].pair == "en-en" and sets[0].labels == ("good", "fair", "bad")
    assert set_sentences(sets) == {"very nice", "so so", "awful", "really nice"}
    scores = score(encode, sets, bootstrap=0, head=HEAD)
    measured = scores["sets"]["s"]["pairs"]["en-en"]
    assert measured["accuracy"] == 75.0
    assert measured["macro_f1"] == pytest.approx(100 * (1 + 0 + 2 / 3) / 3)
    assert scores["mean"]["test"]["classification"] == 75.0
    for other in (None, Head(HEAD.weight, HEAD.bias, ("bad", "fair", "fine"))):
        left_out = score(encode, sets, bootstrap=0, head=other)
        assert left_out["sets"] == {} and "classification" not in left_out["mean"]["test"]


def test_tables_have_a_column_for_it_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "en.tsv").write_text(ROWS)
    about = {"parameters": {"total": 3}, "mib": 1.0}
    with_head, without = (
        about | {"scores": score(encode, load(tmp_path), bootstrap=0, head=head)}
        for head in (HEAD, None)
    )
    assert numbers(with_head)["test_classification"] == 75.0
    assert pair_scores(with_head) == {("test", "s", "en-en"): 75.0}
    assert "test class." not in to_markdown([row_of("a", without)])
    table = to_markdown([row_of("a", without), row_of("b", with_head)]).splitlines()
    place = [cell.strip() for cell in table[0].split("|")].index("test class.")
    assert [line.split("|")[place].strip() for line in table[2:4]] == ["-", "75.00"]


def test_it_selects_where_nothing_else_does_and_shares_are_of_sts(tmp_path: Path) -> None:
    (tmp_path / "en.tsv").write_text(ROWS)
    dev = score(encode, load(tmp_path, split="dev"), bootstrap=0, head=HEAD)
    assert select_value(dev) == 75.0
    test = score(encode, load(tmp_path), bootstrap=0, head=HEAD)
    with pytest.raises(UserError, match="selection needs a set with split=dev"):
        select_value(test)
    none = score(encode, load(tmp_path), bootstrap=0)
    assert share_of(none, test) == {"share": None, "loss": None}


def test_vectors_that_are_no_numbers_get_a_label_all_the_same() -> None:
    head = Head(torch.eye(2), torch.tensor([0.0, 1.0]), ("a", "b"))
    assert head.named(np.array([[np.nan, 5.0], [9.0, 0.0]])) == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "change", "words"),
    [
        ("nice\tgreat\n", {}, r"en\.tsv:1: label 'great'; allowed: good, fair, bad"),
        ("nice\n", {}, r"en\.tsv:1: 1 tab-separated columns, not 2"),
        (ROWS, {"languages": ["en", "de"], "path": "en.tsv"}, r"\{lang\} in path for several"),
        (ROWS, {"languages": []}, "give languages"),
        (ROWS, {"columns": [0, 1, 2]}, "classification has 2"),
        (ROWS, {"format": "demo", "languages": ["fr"], "path": ""}, "the demo has requests in en"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, content: str, change: dict[str, Any], words: str
) -> None:
    (tmp_path / "en.tsv").write_text(content)
    with pytest.raises(UserError, match=words):
        load(tmp_path, **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["good"]}, "give two different ones or more"),
        ({"pairs": ["en-de"]}, "pairs is only read of sets of kind sts and bitext"),
        ({"max_score": 3.0}, "max_score is only read of sets of kind sts"),
        ({"kind": "sts"}, "labels is only read of sets of kind classification"),
    ],
)
def test_settings_that_nothing_reads_are_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        load(tmp_path, **change)


def test_the_embedded_requests_are_sets_as_well() -> None:
    from conftest import configure

    sets = load_sets(configure("eval=demo_requests").eval)
    found = {(s.name, s.pair): len(s.left) for s in sets if s.kind == "classification"}
    assert found == {
        (f"requests_{x}", f"{y}-{y}"): 18 for x in ("dev", "test") for y in ("en", "de")
    }
