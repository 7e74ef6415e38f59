"""Readers: every format, and every way in which a file can be dirty."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import polib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import found, pairs, reasons, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlkd.config.inputs import CorpusConfig
from mlkd.data import rows as rows_module
from mlkd.data.cleaning import clean
from mlkd.data.rows import Reject, Row
from mlkd.data.sources import count_rows, source_files
from mlkd.output.errors import UserError

# --- TSV --------------------------------------------------------------------------------------


def test_tsv_plain_and_gzipped(tmp_path: Path) -> None:
    text = "A dog.\tEin Hund.\nRain\tRegen"
    (tmp_path / "en-de.tsv").write_text(text, encoding="utf-8")
    (tmp_path / "en-de.tsv.gz").write_bytes(gzip.compress(text.encode()))
    expected = [("A dog.", "Ein Hund."), ("Rain", "Regen")]
    assert pairs(tmp_path, format="tsv", path="{source}-{target}.tsv") == expected
    assert pairs(tmp_path, format="tsv", path="en-{target}.tsv.gz") == expected


def test_rows_say_where_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("one\teins\ntwo\tzwei\n")
    row = found(tmp_path, format="tsv", path="x.tsv", domain="shop")[1]
    assert row == Row("two", "zwei", "en", "de", "shop", "c", f"{tmp_path}/x.tsv:2")


def test_columns_by_position_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("id\tde\ten\n7\tHund\tdog\n")
    assert pairs(tmp_path, format="tsv", path="x.tsv", header=True, columns=[2, 1]) == [
        ("dog", "Hund")
    ]
    names = ["{source}", "{target}"]
    assert pairs(tmp_path, format="tsv", path="x.tsv", header=True, columns=names) == [
        ("dog", "Hund")
    ]


@pytest.mark.parametrize(
    ("corpus", "words"),
    [
        ({"columns": ["en", "fr"], "header": True}, ["no 'fr' in x.tsv", "id, de, en"]),
        ({"columns": [0, 3], "header": True}, ["no 3 in x.tsv"]),
        ({"columns": ["en", "de"]}, ["header=true"]),
        ({"columns": [0]}, ["columns", "give two"]),
        ({"path": "y.tsv"}, ["no y.tsv", "data.root", "data.corpora.c.path"]),
        ({"path": ""}, ["data.corpora.c.path is empty"]),
    ],
)
def test_a_wrong_layout_is_refused_in_one_line(
    tmp_path: Path, corpus: dict[str, Any], words: list[str]
) -> None:
    (tmp_path / "x.tsv").write_text("id\tde\ten\n7\tHund\tdog\n")
    message = refused(tmp_path, **{"format": "tsv", "path": "x.tsv", **corpus})
    assert all(word in message for word in words), message


def test_dirty_rows_are_rejected_one_by_one(tmp_path: Path) -> None:
    lines = [
        "\ufeffgood\tgut".encode(),
        b"only one column",
        b"",
        b"three\tdrei\t3",
        b"caf\xe9\tCaf\xe9",
        b"nul\0\tNull",
        b"surrogate\t\xed\xa0\x80",
        "\u200fright to left\tשלום".encode(),
        b"\tempty source",
        b"crlf\tWindows\r",
    ]
    (tmp_path / "x.tsv").write_bytes(b"\n".join(lines) + b"\n")
    items = found(tmp_path, format="tsv", path="x.tsv")
    assert len(items) == len(lines)
    assert reasons(items) == {
        "wrong column count": 3, "not UTF-8": 2, "NUL or lone surrogate": 1
    }  # fmt: skip
    rows = [(item.source, item.target) for item in items if isinstance(item, Row)]
    assert rows[0] == ("good", "gut")
    assert rows[-1] == ("crlf", "Windows")
    assert [item.place.rpartition(":")[2] for item in items if isinstance(item, Reject)] == [
        "2", "3", "4", "5", "6", "7"
    ]  # fmt: skip


def test_the_first_good_row_sets_the_width(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("junk\none\teins\tCC-BY\ntwo\tzwei\tCC-BY\nthree\tdrei\n")
    assert reasons(found(tmp_path, format="tsv", path="x.tsv")) == {"wrong column count": 2}


def test_a_huge_line_is_one_reject_and_is_never_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "_MAX_LINE", 64)
    for length in (62, 63, 64, 65, 127, 128, 129, 1000):
        (tmp_path / "x.tsv").write_bytes(b"a\tb\n" + b"x" * length + b"\nc\td\n")
        items = found(tmp_path, format="tsv", path="x.tsv")
        assert len(items) == 3
        assert reasons(items) == {"line too long" if length > 63 else "wrong column count": 1}
        assert isinstance(items[2], Row)


def test_a_gzip_bomb_stays_small(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "x.tsv.gz", "wb") as file:
        file.write(b"a\tb\n")
        for _ in range(64):
            file.write(b" " * (1 << 20))
    assert (tmp_path / "x.tsv.gz").stat().st_size < 100_000
    items = found(tmp_path, format="tsv", path="x.tsv.gz")
    assert reasons(items) == {"line too long": 1}
    assert len(items[1].raw) <= 200  # type: ignore[union-attr]


def test_broken_gzip_files_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"one\teins\n" * 10_000)
    (tmp_path / "cut.tsv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.tsv.gz").write_bytes(b"<html>404</html>")
    (tmp_path / "crc.tsv.gz").write_bytes(whole[:-8] + b"12345678")
    (tmp_path / "xz.tsv.gz").write_bytes(lzma.compress(b"one\teins\n"))
    for name, words in {
        "cut": "cannot be read", "crc": "cannot be read",
        "page": "not packed; leave .gz out of its name", "xz": "packed with xz; call it .xz",
    }.items():  # fmt: skip
        message = refused(tmp_path, format="tsv", path=f"{name}.tsv.gz")
        assert f"{name}.tsv.gz: {words}" in message


def test_rows_are_counted_before_reading(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("en\tde\na\tb\nc\td\n")
    config = CorpusConfig(format="tsv", path="x.tsv", targets=["de"], header=True)
    assert count_rows(config, [tmp_path / "x.tsv"]) == 2


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.lists(st.text(max_size=20), max_size=8).map(
            lambda cells: "\t".join(cells).encode("utf-8", "surrogatepass")
        ),
    ),
    columns=st.sampled_from([[0, 1], [1, 0], [0, 0]]),
)
def test_no_bytes_break_the_reader(tmp_path: Path, content: bytes, columns: list[int]) -> None:
    (tmp_path / "fuzz.tsv").write_bytes(content)
    try:
        items = found(tmp_path, format="tsv", path="fuzz.tsv", columns=columns)
    except UserError as error:  # bytes that start or look like another kind of file
        assert str(error).startswith((f"{tmp_path}/fuzz.tsv: ", "data.corpora.c."))
        assert len(str(error).splitlines()) == 1
        return
    assert len(items) == len(content.removesuffix(b"\n").split(b"\n")) - (not content)
    for item in items:
        row = item if isinstance(item, Reject) else clean(item, 100)
        if isinstance(row, Row):
            for side in (row.source, row.target):
                assert 0 < len(side) <= 100
                assert side == " ".join(side.split())
                side.encode()


# --- aligned files ----------------------------------------------------------------------------


def test_aligned_text_files(tmp_path: Path) -> None:
    (tmp_path / "news.en").write_text("One\nTwo\n")
    (tmp_path / "news.de").write_text("Eins\nZwei\n")
    corpus = {"format": "aligned", "path": "news.en", "target_path": "news.{target}"}
    assert pairs(tmp_path, **corpus, columns=[0]) == [("One", "Eins"), ("Two", "Zwei")]


def test_each_column_of_aligned_tables_gives_a_pair(tmp_path: Path) -> None:
    (tmp_path / "en.tsv").write_text("A\tB\t1.0\nC\tD\t5.0\n")
    (tmp_path / "de.tsv.gz").write_bytes(gzip.compress(b"a\tb\t1.0\nc\td\t5.0\n"))
    corpus = {"format": "aligned", "path": "en.tsv", "target_path": "de.tsv.gz"}
    assert pairs(tmp_path, **corpus) == [("A", "a"), ("B", "b"), ("C", "c"), ("D", "d")]


def test_a_bad_line_does_not_shift_aligned_files(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_bytes(b"one\n\xff\nthree\nfour\n")
    (tmp_path / "a.de").write_bytes(b"eins\nzwei\n" + b"d" * (1 << 20) + b"\nvier\n")
    items = found(tmp_path, format="aligned", path="a.en", target_path="a.de", columns=[0])
    assert [(item.source, item.target) for item in items if isinstance(item, Row)] == [
        ("one", "eins"), ("four", "vier")
    ]  # fmt: skip
    assert reasons(items) == {"not UTF-8": 1, "line too long": 1}


@pytest.mark.parametrize(("english", "german"), [(3, 2), (2, 4)])
def test_unequal_aligned_files_are_refused(tmp_path: Path, english: int, german: int) -> None:
    (tmp_path / "a.en").write_text("x\n" * english)
    (tmp_path / "a.de").write_text("x\n" * german)
    message = refused(tmp_path, format="aligned", path="a.en", target_path="a.de", columns=[0])
    assert f"a.en has {english} rows, a.de {german}" in message


def test_aligned_needs_two_files(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("x\n")
    assert "target_path" in refused(tmp_path, format="aligned", path="a.en")


# --- JSONL, Parquet, datasets -----------------------------------------------------------------


def test_jsonl(tmp_path: Path) -> None:
    good = [
        {"translation": {"en": "One", "de": "Eins"}},
        {"translation.en": "Two", "translation": {"de": "Zwei"}},
    ]
    bad = [
        '{"translation": ',
        "[1, 2]",
        '{"translation": {"en": "x"}}',
        '{"translation": {"en": 3, "de": "drei"}}',
        '{"translation": {"en": "\\ud800", "de": "x"}}',
        '{"translation": {"en": "\\u0000", "de": "x"}}',
        "[" * 100_000,
        "1" * 5000,
        "",
    ]
    text = "\n".join([*map(json.dumps, good), *bad]) + "\n"
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(text.encode() + b"\xff\n"))
    columns = ["translation.{source}", "translation.{target}"]
    items = found(tmp_path, format="jsonl", path="x.jsonl.gz", columns=columns)
    assert [(item.source, item.target) for item in items if isinstance(item, Row)] == [
        ("One", "Eins"), ("Two", "Zwei")
    ]  # fmt: skip
    assert reasons(items) == {
        "invalid JSON": 4, "missing value": 2, "not a string": 1, "NUL or lone surrogate": 2,
        "not UTF-8": 1,
    }  # fmt: skip


def test_formats_with_names_need_names(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n")
    assert "needs two names" in refused(tmp_path, format="jsonl", path="x.jsonl")


def invalid_utf8() -> pa.Array:
    """A string array whose second value is not UTF-8."""
    return pa.Array.from_buffers(
        pa.string(),
        2,
        [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xff\xfe")],
    )


def test_parquet(tmp_path: Path) -> None:
    table = {
        "english": ["One", None, "Four", "nul\0"],
        "non_english": pa.array(["Eins", "Zwei", None, "Null"]).dictionary_encode(),
        "number": [1, 2, 3, 4],
        "translation": [{"en": "One", "de": "Eins"}, None, {"en": "x", "de": None}, {}],
    }
    (tmp_path / "parts").mkdir()
    pq.write_table(pa.table(table), tmp_path / "parts" / "b.parquet", row_group_size=2)
    names = ["english", "non_english"]
    items = found(tmp_path, format="parquet", path="parts/b.parquet", columns=names)
    assert isinstance(items[0], Row)
    assert (items[0].source, items[0].target) == ("One", "Eins")
    assert reasons(items) == {"missing value": 2, "NUL or lone surrogate": 1}
    nested = ["translation.en", "translation.de"]
    items = found(tmp_path, format="parquet", path="parts", columns=nested)
    assert isinstance(items[0], Row)
    assert reasons(items) == {"missing value": 3}
    (tmp_path / "x.tsv").write_bytes((tmp_path / "parts" / "b.parquet").read_bytes())
    items = found(tmp_path, format="parquet", path="x.tsv", columns=nested)
    assert reasons(items) == {"missing value": 3}
    numbers = found(tmp_path, format="parquet", path="parts", columns=["english", "number"])
    assert reasons(numbers)["not a string"] == 3
    pq.write_table(
        pa.table({"english": invalid_utf8(), "non_english": ["gut", "schlecht"]}),
        tmp_path / "parts" / "c.parquet",
    )
    assert reasons(found(tmp_path, format="parquet", path="parts/c.parquet", columns=names)) == {
        "not UTF-8": 1
    }


def test_parquet_errors(tmp_path: Path) -> None:
    pq.write_table(pa.table({"en": ["a"], "t": [{"de": "b"}]}), tmp_path / "x.parquet")
    corpus = {"format": "parquet", "path": "x.parquet"}
    assert "no 'de' in x.parquet; it has en, t" in refused(tmp_path, **corpus, columns=["en", "de"])
    assert "no 't.fr'" in refused(tmp_path, **corpus, columns=["en", "t.fr"])
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    assert "x.parquet: cannot be read" in refused(tmp_path, **corpus, columns=["en", "de"])
    assert "no nothing/*.parquet" not in refused(
        tmp_path, format="parquet", path="nothing", columns=["en", "de"]
    )


def test_saved_datasets(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list([{"translation": {"en": "One", "de": "Eins"}}] * 3)
    data.select([0, 2]).save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=data, dev=data.select([0])).save_to_disk(tmp_path / "two")
    columns = ["translation.en", "translation.de"]
    corpus = {"format": "dataset", "columns": columns}
    assert pairs(tmp_path, **corpus, path="one") == [("One", "Eins")] * 2
    assert len(pairs(tmp_path, **corpus, path="two", split="dev")) == 1
    assert "test" in refused(tmp_path, **corpus, path="two", split="test")


@pytest.mark.parametrize(
    "name",
    ["en-de/train-00000-of-00001.parquet", "en-de/train/0000.parquet", "en-de/train.parquet"],
)
def test_a_local_copy_of_a_hub_dataset(tmp_path: Path, name: str) -> None:
    path = tmp_path / "org" / "pairs" / name
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"english": ["One"], "non_english": ["Eins"]}), path)
    corpus = {"format": "dataset", "path": "org/pairs", "columns": ["english", "non_english"]}
    assert pairs(tmp_path, **corpus, subset="{source}-{target}") == [("One", "Eins")]
    assert "dev" in refused(tmp_path, **corpus, subset="{source}-{target}", split="dev")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub" / "datasets--org--pairs"


def test_a_hub_dataset_is_read_from_the_cache_at_its_revision(tmp_path: Path, hub: Path) -> None:
    for number, commit in enumerate(("a" * 40, "b" * 40)):
        path = hub / "snapshots" / commit / "en-de" / "train-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"en": [f"One {number}"], "de": ["Eins"]}), path)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("a" * 40)
    corpus = {"format": "dataset", "path": "org/pairs", "subset": "en-de", "columns": ["en", "de"]}
    assert pairs(tmp_path, **corpus, revision="b" * 40) == [("One 1", "Eins")]
    assert pairs(tmp_path, **corpus, revision="main") == [("One 0", "Eins")]
    assert "allow_download=true" in refused(tmp_path, **corpus, revision="c" * 40)


@pytest.mark.usefixtures("hub")
def test_a_hub_dataset_is_not_fetched_unasked(tmp_path: Path) -> None:
    message = refused(tmp_path, format="dataset", path="org/pairs", columns=["en", "de"])
    assert "no folder org/pairs" in message
    assert "data.root" in message
    assert "allow_download=true" in message


# --- gettext ----------------------------------------------------------------------------------

PO = r"""
msgid ""
msgstr "Content-Type: text/plain; charset=UTF-8\n"

msgid "Save \"all\" files\n"
msgstr "Alle Dateien \"sichern\"\n"

msgid "One file"
msgid_plural "%d files"
msgstr[0] "Eine Datei"
msgstr[1] "%d Dateien"

#, fuzzy
msgid "Open"
msgstr "Schließen"

msgid "Print"
msgstr ""

msgid "a page"
msgid_plural "pages"
msgstr[0] "eine Seite"
msgstr[1] ""

#~ msgid "Fax"
#~ msgstr "Fax"
"""


def test_gettext_catalogue(tmp_path: Path) -> None:
    (tmp_path / "de.po").write_text(PO, encoding="utf-8")
    items = found(tmp_path, format="gettext", path="{target}.po")
    assert [(item.source, item.target) for item in items if isinstance(item, Row)] == [
        ('Save "all" files\n', 'Alle Dateien "sichern"\n'),
        ("One file", "Eine Datei"),
        ("%d files", "%d Dateien"),
    ]
    assert reasons(items) == {"fuzzy": 1, "untranslated": 2, "obsolete": 1}
    assert items[0].place.endswith("de.po:5")


def test_gettext_folder(tmp_path: Path) -> None:
    (tmp_path / "de.po").write_text('msgid "One"\nmsgstr "Eins"\n')
    (tmp_path / "fr.po").write_text('msgid "One"\nmsgstr "Un"\n')
    catalogue = polib.POFile()
    catalogue.append(polib.POEntry(msgid="Two", msgstr="Zwei"))
    plural = {0: "Baum", 1: "Bäume"}
    catalogue.append(polib.POEntry(msgid="tree", msgid_plural="trees", msgstr_plural=plural))
    for name in ("shop", "web"):
        folder = tmp_path / name / "locale" / "de" / "LC_MESSAGES"
        folder.mkdir(parents=True)
        catalogue.save_as_mofile(str(folder / "django.mo"))
    (folder / "django.po").write_text('msgid "Three"\nmsgstr "Drei"\n')
    assert pairs(tmp_path, format="gettext", path=".") == [
        ("One", "Eins"), ("Two", "Zwei"), ("tree", "Baum"), ("trees", "Bäume"), ("Three", "Drei")
    ]  # fmt: skip
    assert pairs(tmp_path, "fr", format="gettext", path=".") == [("One", "Un")]
    assert "no es.po or es/LC_MESSAGES" in refused(tmp_path, "es", format="gettext", path=".")


def test_a_broken_catalogue_is_refused(tmp_path: Path) -> None:
    (tmp_path / "de.po").write_text('msgid "One"\n<html>\n')
    (tmp_path / "de.mo").write_bytes(b"no catalogue")
    (tmp_path / "cut.mo").write_bytes(polib.POFile().to_binary()[:9])
    (tmp_path / "latin.po").write_bytes(b'msgid "One"\nmsgstr "\xe9\xff"\n')
    for name in ("de.po", "de.mo", "cut.mo", "latin.po"):
        assert f"{name}: not a readable catalogue" in refused(tmp_path, format="gettext", path=name)


# --- the embedded corpus ----------------------------------------------------------------------


def test_demo_rows_have_their_own_domains(tmp_path: Path) -> None:
    items = found(tmp_path, "fr", format="demo", targets=["fr"])
    domains = {item.domain for item in items if isinstance(item, Row)}
    assert len(domains) > 3
    assert not reasons(items)


def test_demo_files_are_those_that_make_sentences() -> None:
    files = source_files("c", CorpusConfig(format="demo", targets=["de"]), "de", None)
    assert {"grammar.py", "nouns.tsv", "travel.txt"} <= {file.name for file in files}
    assert "sts.tsv" not in {file.name for file in files}


def test_demo_has_five_languages(tmp_path: Path) -> None:
    assert "no it; it has en, de" in refused(tmp_path, "it", format="demo", targets=["it"])
