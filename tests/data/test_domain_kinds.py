"""What a domain is: a label, a language, a format, or a column, of pairs and of labelled text."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import found, refused
from pydantic import ValidationError

from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.config.labelled import LabelledConfig
from mlkd.data import collect
from mlkd.data.pairs import prepare_labelled, prepare_pairs
from mlkd.data.rows import Row
from mlkd.data.store import PairStore
from mlkd.output.errors import UserError

ROWS = [
    {"en": "a dog", "de": "ein Hund", "topic": "animals"},
    {"en": "rain", "de": "Regen", "topic": " weather "},
    {"en": "a word", "de": "ein Wort", "topic": ""},
]
DOMAINS = ["animals", "weather", "rest"]


def tsv(path: Path) -> None:
    lines = ["en\tde\ttopic", *("\t".join(row.values()) for row in ROWS)]
    path.write_text("".join(f"{line}\n" for line in lines))


def as_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["en", "de", "topic"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(ROWS)


def json_lines(path: Path) -> None:
    rows = [ROWS[0], ROWS[1], {"en": "a word", "de": "ein Wort"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


FORMATS: dict[str, tuple[Callable[[Path], object], dict[str, Any]]] = {
    "tsv": (tsv, {"header": True}),
    "csv": (as_csv, {"header": True}),
    "text": (tsv, {"header": True, "columns": ["de"]}),
    "jsonl": (json_lines, {}),
    "json": (lambda path: path.write_text(json.dumps(ROWS)), {}),
    "parquet": (lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path), {}),
    "dataset": (lambda path: datasets.Dataset.from_list(ROWS).save_to_disk(str(path)), {}),
}


@pytest.mark.parametrize("kind", [*FORMATS])
def test_a_column_says_the_domain_in_every_format_with_columns(tmp_path: Path, kind: str) -> None:
    write, more = FORMATS[kind]
    write(tmp_path / "x.parquet")
    corpus = {"format": kind, "path": "x.parquet", "columns": ["en", "de"], "domain": "rest"} | more
    rows = [row for row in found(tmp_path, **corpus, domain_column="topic") if isinstance(row, Row)]
    assert [row.domain for row in rows] == DOMAINS
    assert [row.target for row in rows] == ["ein Hund", "Regen", "ein Wort"]
    message = refused(tmp_path, **corpus, domain_column="subject")
    assert message.startswith("data.corpora.c.domain_column: no ") and "'subject'" in message


def test_a_column_has_a_position_where_there_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("cats\tanimals\tKatzen\nsun\t7\tSonne\n")
    rows = found(tmp_path, format="tsv", path="x.tsv", columns=[0, 2], domain_column=1)
    assert [row.domain for row in rows if isinstance(row, Row)] == ["animals", "7"]
    (tmp_path / "x.tsv").write_text("english\tsubject\tgerman\nsun\tsky\tSonne\n")
    message = refused(tmp_path, format="tsv", path="x.tsv", columns=[0, 2], domain_column=1)
    assert "header=true" in message  # whatever the column is called


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "dataset"])
def test_a_number_is_one_domain_however_it_is_stored(tmp_path: Path, kind: str) -> None:
    """A column of whole numbers with gaps becomes one of floats in pandas."""
    numbers: list[float | None] = [1.0, 2.0, None, 2.5]
    rows = [{"en": f"a {n}", "de": f"ein {n}", "topic": n} for n in numbers]
    rows += [] if kind in ("parquet", "dataset") else [{"en": "b", "de": "c", "topic": 1}]
    place = tmp_path / "x.parquet"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), place)
    elif kind == "dataset":
        datasets.Dataset.from_list(rows).save_to_disk(str(place))
    else:
        dumped = [json.dumps(row) for row in rows]
        place.write_text("\n".join(dumped) if kind == "jsonl" else f"[{','.join(dumped)}]")
    corpus = {"format": kind, "path": place.name, "columns": ["en", "de"], "domain": "rest"}
    read = found(tmp_path, **corpus, domain_column="topic")
    domains = [row.domain for row in read if isinstance(row, Row)]
    assert domains == ["1", "2", "rest", "2.5", "1"][: len(rows)]


def test_labels_may_have_the_language_or_the_format(tmp_path: Path) -> None:
    for language in ("de", "fr"):
        (tmp_path / f"{language}.tsv").write_text(
            "".join(f"{language} {i}\tx {i}\n" for i in "abc")
        )
    (tmp_path / "de.jsonl").write_text('{"en": "a sun", "de": "eine Sonne"}\n')
    corpus = {"format": "tsv", "path": "{target}.tsv", "targets": ["de", "fr"]}
    other = {"format": "jsonl", "path": "de.jsonl", "targets": ["de"], "columns": ["en", "de"]}
    for domain, expected in (
        ("{target}", {"de", "fr"}), ("{source}", {"en"}), ("{format}", {"tsv", "jsonl"}),
        ("shop, {target}", {"shop, de", "shop, fr"}),
    ):  # fmt: skip
        corpora = {"c": corpus | {"domain": domain}, "d": other | {"domain": domain}}
        config = DataConfig.model_validate(
            {"root": str(tmp_path), "dev_fraction": 0.3, "corpora": corpora}
        )
        assert set(prepare_pairs(config, (), tmp_path / "cache").domains) == expected


def labelled(root: Path, **more: Any) -> PairStore:
    one = {"kind": "classification", "format": "tsv", "path": "a.tsv", "labels": ["bad", "good"]}
    values = {
        "corpora": {"x": {"format": "demo", "targets": ["de"]}},
        "labelled": {"a": one | more},
    }
    config = DataConfig.model_validate({"root": str(root), "dev_fraction": 0.2, **values})
    return prepare_labelled(config, config.labelled, [], [], root / "cache")


def test_labelled_text_has_the_same_kinds(tmp_path: Path) -> None:
    lines = [f"a text of {i}\t{'good' if i % 2 else 'bad'}\t{'books' if i % 3 else ''}\n"
             for i in range(40)]  # fmt: skip
    (tmp_path / "a.tsv").write_text("".join(lines))
    objects = [dict(zip("tly", line.rstrip("\n").split("\t"), strict=True)) for line in lines]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in objects))
    plain = labelled(tmp_path, columns=[0, 1])
    for store in (
        labelled(tmp_path, columns=[0, 1], domain_column=2, domain="{language}"),
        labelled(tmp_path, format="jsonl", path="a.jsonl", columns=["t", "l"], domain_column="y",
                 domain="{language}"),
    ):  # fmt: skip
        assert store.domains == ["en", "books"] and len(store) == len(plain)
        for row in range(40):
            number = int(store.text(store.source[row]).rpartition(" ")[2])
            assert store.domains[store.domain[row]] == ("books" if number % 3 else "en")
            assert store.value is not None and store.value[row] == number % 2
    # Links that do not read domains do not depend on them.
    named = labelled(tmp_path, columns=[0, 1], domain_column=2)
    assert named.fingerprint == plain.fingerprint and named.domain_hash != plain.domain_hash
    assert labelled(tmp_path, columns=[0, 1], domain="{format}").domains == ["tsv"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"domain": "{langauge}"},
            "domain: {langauge} is not filled in; allowed: {source}, {target",
        ),
        (
            {"domain": "{ target }"},
            "domain: { target } is not filled in; allowed: {source}, {target",
        ),
        ({"domain": "x {}"}, "domain: {} is not filled in; allowed: {source}, {target"),
        ({"path": "x.{ target }"}, "path: { target } is not filled in; allowed: {source}, {target"),
        ({"path": "{lang}.tsv"}, "path: {lang} is not filled in; allowed: {source}, {target"),
        ({"domain_column": -1}, "-1 is no column; allowed: positions from 0, and names"),
        ({"domain_column": True}, "True is no column; allowed: positions from 0, and names"),
        ({"columns": [0, -1]}, "-1 is no column; allowed: positions from 0, and names"),
        ({"domain": ""}, "at least 1 character"),
        (
            {"format": "tmx", "path": "x", "domain_column": 1},
            "domain_column is not read in the",
        ),
        ({"format": "jsonl", "domain_column": 1}, "domain_column=1: columns of jsonl have names"),
    ],
)
def test_domains_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    corpus = {"format": "tsv", "path": "x", "targets": ["de"]} | given
    with pytest.raises(ValidationError) as caught:
        CorpusConfig.model_validate(corpus)
    assert words in str(caught.value)
    if given.get("format") == "tmx":
        return
    text = {"kind": "classification", "format": "tsv", "path": "x", "labels": ["a", "b"]} | given
    with pytest.raises(ValidationError) as caught:
        LabelledConfig.model_validate(text)
    assert words.replace("{source}, {target", "{language}") in str(caught.value)


def test_a_column_without_values_and_too_many_domains_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.tsv").write_text("one\teins\t\ntwo\tzwei\t \n")
    message = refused(tmp_path, format="tsv", path="x.tsv", columns=[0, 1], domain_column=2)
    assert message == "data.corpora.c.domain_column: no row has one in 2"
    (tmp_path / "a.tsv").write_text("".join(f"text {i}\tbad\tsubject {i}\n" for i in range(9)))
    with pytest.raises(UserError, match=r"data\.labelled\.a\.domain_column: no '?subject"):
        labelled(tmp_path, columns=[0, 1], domain_column="subject")
    monkeypatch.setattr(collect, "_MOST_DOMAINS", 4)
    with pytest.raises(UserError, match=r"data\.labelled\.a: more than 5 domains; a domain is a"):
        labelled(tmp_path, columns=[0, 1], domain_column=2)
