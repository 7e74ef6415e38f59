"""What the user is told about the rows of the corpora."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from mlkd.config.inputs import DataConfig
from mlkd.data.account import account, too_small_for_mixing
from mlkd.data.pairs import prepare_pairs
from mlkd.data.store import PairStore
from mlkd.output.errors import UserError

LINES = [f"The cat number {i}.\tDie Katze Nummer {i}." for i in range(200)]


def config(root: Path, corpora: dict[str, Any], **data: Any) -> DataConfig:
    values = {"root": str(root), "dev_fraction": 0.1, "corpora": corpora, **data}
    return DataConfig.model_validate(values)


def prepare(
    root: Path, corpora: dict[str, Any], exclude: tuple[str, ...] = (), **data: Any
) -> PairStore:
    return prepare_pairs(config(root, corpora, **data), exclude, root / "cache")


def catalogue(root: Path, name: str, entries: int, mark: str = "") -> dict[str, Any]:
    """A catalogue in which every entry has a mark."""
    texts = [f'{mark}msgid "Open the file {i}"\nmsgstr "Datei {i} auf"\n' for i in range(entries)]
    (root / name).write_text("\n".join(texts))
    return {"format": "gettext", "path": name, "targets": ["de"]}


def count(corpus: str, train: int, **more: Any) -> dict[str, Any]:
    languages = {"source_lang": "en", "target_lang": "de"}
    rest = {"rows": train, "dev": 0, "rejected": {}, "dropped": {}}
    return {"corpus": corpus, **languages, "train": train, **rest, **more}


def test_a_line_a_corpus(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = ["no tab", "x\t" + "y" * 300, "12\t34", "x\t" + "y" * 251]
    rows = [*LINES, *bad, LINES[0], "THE CAT number 7\tirgendwas"]
    (tmp_path / "de.tsv").write_text("\n".join(rows))
    fr = [line.replace("Die Katze", "Le chat") for line in LINES[:50]]
    (tmp_path / "fr.tsv").write_text("\n".join(fr))
    corpora = {
        "cats": {"format": "tsv", "path": "{target}.tsv", "targets": ["de", "fr"]},
        "app": catalogue(tmp_path, "de.po", 30),
    }
    with caplog.at_level(logging.INFO, logger="mlkd"):
        prepare(tmp_path, corpora, ("the cat number 7",), max_rejected=0.1)
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == (
        "pairs of cats en-de, en-fr: read 256 rows, rejected 4 (too long 2: data.max_chars=250, "
        "wrong column count 1, no letters 1), evaluation sentence 3, duplicate 1, left 248"
    )
    assert told[1] == "pairs of app en-de: read 30 rows, left 30"
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="mlkd"):
        prepare(tmp_path, corpora, ("the cat number 7",), max_rejected=0.1)
    assert [record.getMessage() for record in caplog.records] == told, "of a store that is there"


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    rows = [*LINES, *LINES[:20], "bad", *(f"{line}!\tx" for line in LINES[:5])]
    rows += [f"Greeting {i}.\tHallo {i % 7}" for i in range(100)]
    (tmp_path / "de.tsv").write_text("\n".join(rows))
    corpus = {"format": "tsv", "path": "de.tsv", "targets": ["de"]}
    store = prepare(tmp_path, {"c": corpus}, ("Hallo 3",), fraction=0.8, max_rejected=0.2)
    (found,) = store.counts
    gone = sum(found["rejected"].values()) + sum(found["dropped"].values())
    assert len(found["dropped"]) == 4, "every way in which a good row can be left out"
    assert gone + found["train"] + found["dev"] == found["rows"] == len(rows)


def test_a_catalogue_of_fuzzy_entries_is_told_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fuzzy = catalogue(tmp_path, "app.po", 120, "#, fuzzy\n")
    account_of = "app en-de: read 120 rows, unfinished 120 (fuzzy 120), left 0"
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, {"app": fuzzy})
    assert str(caught.value).endswith(f"(data.dev_fraction=0.1); {account_of}")
    (tmp_path / "fr.tsv").write_text("\n".join(LINES))
    french = {"format": "tsv", "path": "fr.tsv", "targets": ["fr"]}
    with pytest.raises(UserError) as caught:
        prepare(tmp_path, {"app": fuzzy, "cats": french})
    assert str(caught.value) == f"data: no training pairs are left for de; {account_of}"
    german = french | {"targets": ["de"]}
    with caplog.at_level(logging.WARNING, logger="mlkd"):
        prepare(tmp_path, {"app": fuzzy, "cats": german})
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"no pairs are left of {account_of}"]


def test_a_small_corpus_that_mixing_repeats(tmp_path: Path) -> None:
    """(9 + 2,682) / 2 draws of 9 pairs."""
    corpora = {"memory": catalogue(tmp_path, "a.po", 1), "docs": catalogue(tmp_path, "b.po", 1)}
    counts = [count("memory", 9), count("docs", 2682)]
    assert too_small_for_mixing(config(tmp_path, corpora), counts) == [
        "memory en-de: data.mixing=uniform draws each of its 9 pairs 149 times an epoch; "
        "proportional draws each once, temperature is between the two"
    ]
    assert too_small_for_mixing(config(tmp_path, corpora, mixing="proportional"), counts) == []
    # The roots are 3 and 51.8: 3 / 54.8 of 2,691 draws are 16 a pair.
    even = config(tmp_path, corpora, mixing="temperature", temperature=2.0)
    (line,) = too_small_for_mixing(even, counts)
    assert "data.mixing=temperature draws each of its 9 pairs 16 times" in line
    assert too_small_for_mixing(config(tmp_path, corpora), [count("a", 5), count("b", 0)]) == []


def test_unfinished_rows_are_not_rejected_ones(tmp_path: Path) -> None:
    data = config(tmp_path, {"app": catalogue(tmp_path, "a.po", 1)})
    rows = {"rejected": {"fuzzy": 1000, "untranslated": 203, "empty side": 1}, "rows": 2204}
    assert account(data, [count("app", 1000, **rows)]) == [
        "app en-de: read 2,204 rows, rejected 1 (empty side 1), unfinished 1,203 (fuzzy 1,000, "
        "untranslated 203), left 1,000"
    ]


def test_too_long_names_its_setting(tmp_path: Path) -> None:
    (tmp_path / "de.tsv").write_text("\n".join(["x y z\ta b c", *LINES]))
    corpus = {"format": "tsv", "path": "de.tsv", "targets": ["de"]}
    with pytest.raises(UserError, match=r"\(too long 200: data\.max_chars=10\); allowed is"):
        prepare(tmp_path, {"c": corpus}, max_chars=10)


def test_several_source_languages_are_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x.tsv").write_text("\n".join(LINES))
    german = {"format": "tsv", "path": "x.tsv", "targets": ["de"]}
    swapped = german | {"source": "de", "targets": ["en"], "columns": [1, 0]}
    with caplog.at_level(logging.WARNING, logger="mlkd"):
        prepare(tmp_path, {"a": german})
    assert not caplog.records
    with caplog.at_level(logging.WARNING, logger="mlkd"):
        prepare(tmp_path, {"a": german, "b": swapped})
    (record,) = caplog.records
    assert record.getMessage() == (
        "pairs: the source side is de, en: the teacher has to read each of them"
    )


def test_ten_draws_are_mentioned_and_nine_are_not(tmp_path: Path) -> None:
    """Half of 200 draws are ten for each of ten pairs, half of 198 are 9.9."""
    data = config(tmp_path, {"app": catalogue(tmp_path, "a.po", 1)})
    assert len(too_small_for_mixing(data, [count("a", 10), count("b", 190)])) == 1
    assert too_small_for_mixing(data, [count("a", 10), count("b", 188)]) == []
