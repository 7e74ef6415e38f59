"""Labelled text: values, splits, bad rows by reason, formats, what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mlkd.config.inputs import DataConfig
from mlkd.config.labelled import LabelledConfig, Task, task_of
from mlkd.data.module import PairSource
from mlkd.data.pairs import prepare_labelled
from mlkd.data.shares import share
from mlkd.data.store import PairStore
from mlkd.data.tokens import TokenStore
from mlkd.output.errors import UserError

REVIEWS = {"kind": "classification", "format": "tsv", "path": "a.tsv", "labels": ["bad", "good"]}
SCORES = {"kind": "similarity", "format": "tsv", "path": "a.tsv"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PLENTY = [f"a text of {a} and {b}\t{'good' if a < b else 'bad'}" for a in LETTERS for b in "cx"]


def write(folder: Path, *lines: str, name: str = "a.tsv") -> None:
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def prepare(
    root: Path, exclude: list[str] | None = None, held: list[str] | None = None, /, **corpora: Any
) -> PairStore:
    values = {"corpora": {"x": {"format": "demo", "targets": ["de"]}}, "labelled": corpora}
    config = DataConfig.model_validate({"root": str(root), "dev_fraction": 0.2, **values})
    return prepare_labelled(config, config.labelled, exclude or [], held or [], root / "cache")


def rows(store: PairStore, which: np.ndarray) -> list[tuple[str, str, float]]:
    assert store.value is not None
    sides = store.texts(store.source[which]), store.texts(store.translation[which])
    return list(zip(*sides, store.value[which].tolist(), strict=True))


def test_a_text_is_both_sides_and_its_value_is_the_index_of_its_label(tmp_path: Path) -> None:
    write(tmp_path, *PLENTY)
    store = prepare(tmp_path, a=REVIEWS)
    assert store.task == Task("classification", ("bad", "good"))
    found = rows(store, np.arange(len(store)))
    assert sorted(found) == sorted(
        (text, text, float(label == "good")) for text, label in (x.split("\t") for x in PLENTY)
    )
    assert 0 < len(store.dev_pairs()) < len(store) / 2
    turned = prepare(tmp_path, a=REVIEWS | {"labels": ["good", "bad"]})
    assert turned.value is not None and turned.value.mean() == 1 - store.value.mean()  # type: ignore[union-attr]
    assert turned.fingerprint != store.fingerprint


def test_scores_go_from_0_to_1_and_a_dev_file_is_held_out(tmp_path: Path) -> None:
    write(tmp_path, "one dog\ttwo dogs\t4.5", "a cat\ta horse\t1", "one hare\tno hare\t2")
    write(tmp_path, "a bird\ta cat\t3", "a fish\ta frog\t5", name="dev.tsv")
    store = prepare(tmp_path, a=SCORES | {"dev_path": "dev.tsv", "scores": [1, 5]})
    train, dev = (rows(store, which) for which in (store.train_pairs(), store.dev_pairs()))
    assert dev == [("a bird", "a cat", 0.5), ("a fish", "a frog", 1.0)]
    # "a cat" stands in a dev pair.
    assert train == [("one dog", "two dogs", 0.875), ("one hare", "no hare", 0.25)]
    assert [count["dropped"] for count in store.counts] == [{}, {"sentence of a dev pair": 1}]


def test_evaluation_sentences_do_not_train_and_those_of_tests_do_not_select(tmp_path: Path) -> None:
    write(tmp_path, "one dog\ttwo dogs\t4", "a cat\ta horse\t1", "one hare\tno hare\t2")
    write(tmp_path, "a bird\ta swan\t3", "a fish\ta frog\t5", name="dev.tsv")
    corpus = SCORES | {"dev_path": "dev.tsv"}
    store = prepare(tmp_path, ["A dog.", "A CAT!", "a bird", "a frog"], ["a frog"], a=corpus)
    assert [row[0] for row in rows(store, store.train_pairs())] == ["one dog", "one hare"]
    assert [row[0] for row in rows(store, store.dev_pairs())] == ["a bird"]


@pytest.mark.parametrize(
    ("corpus", "line", "reason"),
    [
        (REVIEWS, "a fine text\tfine", "unknown label"),
        (REVIEWS, "a fine text\t", "no label"),
        (REVIEWS, "  \tgood", "empty side"),
        (REVIEWS, "a fine text", "wrong column count"),
        (SCORES, "a dog\ta cat\t5.1", "score out of range"),
        (SCORES, "a dog\ta cat\tnan", "score out of range"),
        (SCORES, "a dog\ta cat\tmuch", "score out of range"),
        (SCORES, "a dog\t\t2", "empty side"),
    ],
)
def test_bad_rows_are_counted_by_reason(
    tmp_path: Path, corpus: dict[str, Any], line: str, reason: str
) -> None:
    good = (
        PLENTY
        if corpus is REVIEWS
        else [f"dog {x}\tcat {x}\t{i % 5}" for i, x in enumerate(2 * LETTERS)]
    )
    write(tmp_path, *good, line)
    store = prepare(tmp_path, a=corpus)
    assert store.counts[0]["rejected"] == {reason: 1}
    written = (store.folder / "rejected.tsv").read_text()
    assert f"a.tsv\t{len(good) + 1}\t{reason}\t" in written
    with pytest.raises(UserError, match=rf"data\.labelled\.a: .* bad \({reason} 9\)"):
        write(tmp_path, *good, *[line] * 9)
        prepare(tmp_path, a=corpus)


def test_columns_by_name_or_position_in_csv_and_jsonl(tmp_path: Path) -> None:
    records = [{"id": i, "body": f'a "{x}", so', "stars": i % 2} for i, x in enumerate(LETTERS)]
    lines = [f'{r["id"]};"a ""{LETTERS[i]}"", so";{r["stars"]}' for i, r in enumerate(records)]
    write(tmp_path, "id;body;stars", *lines, name="a.csv")
    write(tmp_path, *map(json.dumps, records), name="a.jsonl")
    corpus = {"kind": "classification", "labels": [0, 1], "columns": ["body", "stars"]}
    csv = prepare(
        tmp_path, a=corpus | {"format": "csv", "path": "a.csv", "header": True, "delimiter": ";"}
    )
    jsonl = prepare(tmp_path, a=corpus | {"format": "jsonl", "path": "a.jsonl"})
    every = np.arange(26)
    assert rows(csv, every) == rows(jsonl, every)
    assert rows(csv, every)[3] == ('a "d", so',) * 2 + (1.0,)
    with pytest.raises(UserError, match=r"data\.labelled\.a\.columns: no 'text' in"):
        prepare(tmp_path, a=corpus | {"format": "csv", "path": "a.csv", "header": True,
                                      "delimiter": ";", "columns": ["text", "stars"]})  # fmt: skip
    with pytest.raises(
        UserError, match=r"data\.labelled\.a\.header: the first row \(text, label\)"
    ):
        write(tmp_path, "text\tlabel", *PLENTY)
        prepare(tmp_path, a=REVIEWS)


def test_a_language_in_the_path_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, *PLENTY, name="de.tsv")
    store = prepare(tmp_path, a=REVIEWS | {"path": "{language}.tsv", "language": "de"})
    assert store.languages == ["de"]
    with pytest.raises(UserError, match=r"data\.labelled\.a: no .*fr\.tsv; set data\.root or"):
        prepare(tmp_path, a=REVIEWS | {"path": "{language}.tsv", "language": "fr"})
    with pytest.raises(UserError, match=r"data\.labelled\.a\.dev_path"):
        prepare(tmp_path, a=REVIEWS | {"path": "de.tsv", "dev_path": "no.tsv"})


def test_the_demo_has_requests_in_two_languages() -> None:
    from mlkd.data.labelled import DEMO

    lines = [line.split("\t") for line in DEMO.read_text(encoding="utf-8").splitlines()]
    assert lines[0] == ["split", "label", "en", "de"]
    texts = [text for line in lines[1:] for text in line[2:]]
    assert len(set(texts)) == len(texts) == 2 * 96
    kinds = Counter(tuple(line[:2]) for line in lines[1:])
    assert sorted(kinds.values()) == [6] * 6 + [20] * 3


def test_several_corpora_teach_one_task_and_keep_their_domains(tmp_path: Path) -> None:
    write(tmp_path, *PLENTY)
    write(tmp_path, *(f"more {line}" for line in PLENTY), name="b.tsv")
    books = {
        "a": REVIEWS | {"domain": "books"},
        "b": REVIEWS | {"domain": "music", "path": "b.tsv"},
    }
    store = prepare(tmp_path, **books)
    assert store.domains == ["books", "music"] and set(store.domain) == {0, 1}
    assert len(store) == 2 * len(PLENTY)
    other = LabelledConfig.model_validate(REVIEWS | {"labels": ["good", "bad"]})
    with pytest.raises(ValueError, match="a and b are no corpora of one kind with the same labels"):
        task_of({"a": LabelledConfig.model_validate(REVIEWS), "b": other})


def test_batches_bring_the_values(tmp_path: Path) -> None:
    write(tmp_path, *PLENTY)
    store = prepare(tmp_path, a=REVIEWS)
    tokens = TokenStore(np.arange(store.n_sentences), np.arange(store.n_sentences + 1), 0)
    batch = PairSource(store, tokens).batch(np.array([4, 0, 7]))
    assert store.value is not None and batch.value is not None
    assert batch.value.tolist() == store.value[[4, 0, 7]].tolist()
    assert batch.source.tolist() == batch.translation.tolist()
    assert len(batch.ids) == 3  # each text once


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": ["good"]}, "give two different ones"),
        ({"labels": ["good", "good"]}, "give two different ones"),
        ({"columns": [0, 1, 2]}, "a classification has 2"),
        ({"delimiter": ";"}, "delimiter is not read of labelled text tsv"),
        ({"scores": [0, 1]}, "scores is not read of labelled text of kind classification"),
        ({"path": ""}, "format tsv needs a path"),
        ({"language": "nothing"}, "is no language"),
    ],
)
def test_what_is_impossible_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        LabelledConfig.model_validate(REVIEWS | change)


def test_a_share_has_every_label_of_every_corpus_and_is_nested(tmp_path: Path) -> None:
    counts = {("a", "bad"): 60, ("a", "good"): 9, ("b", "bad"): 3, ("b", "good"): 40}
    for name in ("a", "b"):
        lines = [f"text {n} of {label} in {name}\t{label}"
                 for label in ("bad", "good") for n in range(counts[name, label])]  # fmt: skip
        write(tmp_path, *lines, name=f"{name}.tsv")
    write(tmp_path, "held out\tbad", name="dev.tsv")
    known = {name: REVIEWS | {"path": f"{name}.tsv", "dev_path": "dev.tsv"} for name in "ab"}
    store, before = prepare(tmp_path, **known), set[int]()
    for fraction, expected in (
        (0.02, [1, 1, 1, 1]), (0.2, [12, 2, 1, 8]), (0.5, [30, 4, 2, 20]), (1.0, [60, 9, 3, 40]),
    ):  # fmt: skip
        drawn = share(store, fraction)
        words = [text.split() for text in store.texts(store.source[drawn])]
        found = Counter((name, label) for *_, label, _, name in words)
        assert [found[key] for key in counts] == expected
        assert before <= set(drawn.tolist()) and np.all(np.diff(drawn) > 0)
        before = set(drawn.tolist())


def test_a_share_hangs_on_the_texts_alone(tmp_path: Path) -> None:
    """A teacher of all corpora and a student of one read the same few texts of that one."""
    write(tmp_path, *PLENTY)
    write(tmp_path, *(f"another {line}" for line in PLENTY), name="b.tsv")
    write(tmp_path, "held out\tbad", name="dev.tsv")
    known = {name: REVIEWS | {"path": f"{name}.tsv", "dev_path": "dev.tsv"} for name in "ab"}

    def drawn(store: PairStore) -> set[str]:
        return set(store.texts(store.source[share(store, 0.25)]))

    both, one = drawn(prepare(tmp_path, **known)), drawn(prepare(tmp_path, b=known["b"]))
    assert one == {text for text in both if text.startswith("another")} and len(one) == 13
    write(tmp_path, "a new first row\tbad", *(f"another {x}" for x in PLENTY), name="b.tsv")
    assert len(one & drawn(prepare(tmp_path, b=known["b"]))) >= 12
