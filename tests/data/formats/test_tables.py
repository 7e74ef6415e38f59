"""CSV, quotes and headers in tab-separated files, zips of Moses files, JSON arrays, plain text."""

from __future__ import annotations

import bz2
import json
import lzma
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from corpora import found, pairs, reasons, refused

from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.data.pairs import prepare_pairs
from mlkd.data.rows import Row
from mlkd.output.errors import UserError

TABLE = pd.DataFrame(
    {
        "english": ["A dog.", 'He said "yes", twice.', "Two\nlines", "a\tb", "Rain"],
        "german": ["Ein Hund.", 'Er sagte "ja".', "Zwei\n\nZeilen", "c", "Regen, „nass“"],
    }
)
ROWS = list(TABLE.itertuples(index=False, name=None))
NAMES = {"columns": ["english", "german"], "header": True}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_gives_what_pandas_wrote(tmp_path: Path, delimiter: str) -> None:
    TABLE.to_csv(tmp_path / "x.csv", sep=delimiter)
    corpus = {"format": "csv", "path": "x.csv", "delimiter": delimiter}
    assert pairs(tmp_path, **corpus, **NAMES) == ROWS
    assert pairs(tmp_path, **corpus, columns=[1, 2], header=True) == ROWS
    TABLE.to_csv(tmp_path / "x.csv", sep=delimiter, header=False, index=False, encoding="utf-8-sig")
    assert pairs(tmp_path, **corpus) == ROWS


def test_a_tab_on_a_command_line(tmp_path: Path) -> None:
    TABLE.to_csv(tmp_path / "x.csv", sep="\t", index=False)
    for written in ("tab", "\\t"):
        corpus = {"format": "csv", "path": "x.csv", "delimiter": written}
        assert pairs(tmp_path, **corpus, **NAMES) == ROWS
    with pytest.raises(ValueError, match="delimiter"):
        CorpusConfig.model_validate({"format": "csv", "targets": ["de"], "delimiter": ",,"})


def test_dirty_csv(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(
        b'a,b\nc\nd,e,f\n"g\xff",h\n"i\nj\xff",k\nnul\0,l\n"m\r\nn",o\n'
    )
    items = found(tmp_path, format="csv", path="x.csv")
    assert [(item.source, item.target) for item in items if isinstance(item, Row)] == [
        ("a", "b"), ("m\nn", "o")
    ]  # fmt: skip
    assert reasons(items) == {
        "wrong column count": 2, "not UTF-8": 2, "NUL or lone surrogate": 1
    }  # fmt: skip
    assert items[-1].place.endswith("x.csv:8")
    for text in ('a,b\n"c,d\n', 'a,b\n"c"x,d\n', '"' + "x" * 200_000):
        (tmp_path / "x.csv").write_text(text)
        assert "x.csv:" in refused(tmp_path, format="csv", path="x.csv")
    (tmp_path / "x.csv").write_text("a;b\n")
    assert "has 1 columns with delimiter ','" in refused(tmp_path, format="csv", path="x.csv")


@pytest.mark.parametrize(
    "rows",
    [
        [("A dog", "Ein Hund"), ("Two\nlines", "Zwei Zeilen")],
        [("A dog", "Ein Hund"), ("Two lines", "Zwei\nZeilen")],
        [("Two\nlines", "Zwei\nZeilen"), ("A dog", "Ein Hund")],
        [("A dog", "Ein Hund")] * 50 + [("Rain", "Er\n\nsagte \"ja\"\n.")],
    ],
)  # fmt: skip
def test_tsv_that_pandas_quoted_is_refused(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "x.tsv", sep="\t", header=False, index=False)
    message = refused(tmp_path, format="tsv", path="x.tsv")
    assert message.startswith("data.corpora.c.format: x.tsv:")
    assert message.endswith("the file is quoted as CSV: format: csv, delimiter: tab")
    assert pairs(tmp_path, format="csv", path="x.tsv", delimiter="tab") == rows


def test_quotes_of_a_text_are_no_quotes_of_a_table(tmp_path: Path) -> None:
    rows = [
        ('"I do not know.', '"Ich weiß nicht.'), ('And you"', 'Und du"'),
        ('"Yes," she said.', '„Ja“, sagte sie.'), ('5" pipe', '"5 Zoll'), ('"No."', '"Nein."'),
        ("x", '"y'), ('He said: "Go', 'Er: "Geh'), ('now!"', 'jetzt!"'),
    ]  # fmt: skip
    (tmp_path / "x.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in rows))
    assert pairs(tmp_path, format="tsv", path="x.tsv") == rows


def test_doubled_quotes_of_a_table_are_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text('"He said ""yes""."\tEr sagte ja.\nRain\tRegen\n""\t""\n')
    items = found(tmp_path, format="tsv", path="x.tsv")
    assert reasons(items) == {"quoted as CSV": 1}


def test_a_first_row_of_words_that_are_alike_is_a_pair(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("Question?\tQuestion ?\nRain\tPluie\n")
    assert len(pairs(tmp_path, format="tsv", path="x.tsv")) == 2


@pytest.mark.parametrize(
    "header",
    [("english", "german"), ("en", "de"), ("Source", "Target"), ("sentence1", "sentence2"),
     ("text_en", "text_de"), ("src", "tgt"), ('"English"', '"German"'), ("deu", "eng"),
     ("sent_en", "sent_de"), ("question", "translation"), ("anchor", "positive"),
     ("English", "Deutsch"), ("en_US", "de_DE"), ("eng_Latn", "deu_Latn"), ("src", "mt"),
     ("source_sentence", "reference_translation"), ("msgid", "msgstr"), ("col0", "col1"),
     ("Englisch", "Deutsch"), ("Deutsch", "English"), ("English (US)", "Deutsch (Österreich)"),
     ("Inglés", "Alemán"), ("Anglais (Canada)", "Allemand")],
)  # fmt: skip
def test_a_header_is_not_trained(tmp_path: Path, header: tuple[str, str]) -> None:
    (tmp_path / "x.tsv").write_text(f"{header[0]}\t{header[1]}\nRain\tRegen\n")
    (tmp_path / "x.csv").write_text(f"{header[0]},{header[1]}\nRain,Regen\n")
    for kind in ("tsv", "csv"):
        message = refused(tmp_path, format=kind, path=f"x.{kind}")
        assert "data.corpora.c.header=true, or header=false if it is none" in message
        read = partial(pairs, tmp_path, format=kind, path=f"x.{kind}")
        assert read(header=True) == [("Rain", "Regen")]
        first = tuple(x.strip('"') if kind == "csv" else x for x in header)
        assert read(header=False) == [first, ("Rain", "Regen")]


def test_a_denied_header_says_nothing_of_other_formats_and_files(tmp_path: Path) -> None:
    assert CorpusConfig(format="demo", targets=["de"], header=False).header is False
    with pytest.raises(ValueError, match="header is not read in the format demo"):
        CorpusConfig(format="demo", targets=["de"], header=True)
    (tmp_path / "x.tsv").write_text("en\tde\n" + "".join(f"a {i}\tein {i}\n" for i in range(99)))
    for header in (False, None):  # pairs that were read once do not hide what is refused
        corpus = {"format": "tsv", "path": "x.tsv", "targets": ["de"], "header": header}
        config = DataConfig.model_validate(
            {"root": str(tmp_path), "corpora": {"c": corpus}, "dev_fraction": 0.2}
        )
        if header is None:
            with pytest.raises(UserError, match="looks like the names of the columns"):
                prepare_pairs(config, set(), tmp_path / "cache")
        else:
            prepare_pairs(config, set(), tmp_path / "cache")


@pytest.mark.parametrize(
    "first",
    [
        "Source\tQuelle",
        "text\tText me",
        "A dog\tdeutsch",
        "1\t2",
        "English\tEnglisch",
        "German\tDeutsch",
        "text\ttext",
        "passage\tpassage",
        "German (Austria)\tDeutsch (Österreich)",
        "English (US)\tEnglisch (USA)",
    ],
)
def test_a_pair_is_no_header(tmp_path: Path, first: str) -> None:
    (tmp_path / "x.tsv").write_text(first + "\n")
    assert pairs(tmp_path, format="tsv", path="x.tsv") == [tuple(first.split("\t"))]


def test_the_header_of_one_column(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("text\nRegen\n")
    assert "x.txt:1 looks like the names of the columns" in refused(
        tmp_path, format="text", path="x.txt"
    )
    assert len(pairs(tmp_path, format="text", path="x.txt", header=True)) == 1
    assert len(pairs(tmp_path, format="text", path="x.txt", header=False)) == 2
    for first in ("Text", "text me", "de", "Englisch"):
        path.write_text(f"{first}\nRegen\n")
        assert len(pairs(tmp_path, format="text", path="x.txt")) == 2


# --- packed files, zips, JSON -----------------------------------------------------------------


def test_packed_files(tmp_path: Path) -> None:
    data = b"Rain\tRegen\nSnow\tSchnee\n"
    (tmp_path / "x.tsv.xz").write_bytes(lzma.compress(data))
    (tmp_path / "x.tsv.bz2").write_bytes(bz2.compress(data))
    for name in ("x.tsv.xz", "x.tsv.bz2"):
        assert pairs(tmp_path, format="tsv", path=name) == [("Rain", "Regen"), ("Snow", "Schnee")]
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        assert f"{name}: cannot be read" in refused(tmp_path, format="tsv", path=name)


def archive(path: Path, **files: str) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, text in files.items():
            zipped.writestr(name.replace("__", "-").replace("_", "."), text)


def test_moses_zip(tmp_path: Path) -> None:
    archive(
        tmp_path / "de-en.txt.zip", README="x", Books_de__en_de="Regen\nSchnee\n",
        Books_de__en_en="Rain\nSnow\n", Books_de__en_ids="1\n2\n",
    )  # fmt: skip
    corpus = {"format": "moses", "path": "{pair}.txt.zip"}
    assert pairs(tmp_path, **corpus) == [("Rain", "Regen"), ("Snow", "Schnee")]
    item = found(tmp_path, **corpus)[1]
    assert item.place == f"{tmp_path}/de-en.txt.zip/Books.de-en.en:2"
    message = refused(tmp_path, "fr", format="moses", path="de-en.txt.zip", targets=["fr"])
    assert message.startswith("data.corpora.c: no files of en and fr in de-en.txt.zip; it has")
    archive(tmp_path / "en-fr.txt.zip", x_en="a\nb\n", x_fr="a\n")
    message = refused(tmp_path, "fr", format="moses", path="en-fr.txt.zip", targets=["fr"])
    assert "has 2 rows" in message


def test_moses_zip_with_other_codes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        zipped.writestr("x.en-pt_br.en", "Bus\n")
        zipped.writestr("x.en-pt_br.pt_br", "Ônibus\n")
    corpus: dict[str, Any] = {"format": "moses", "path": "x.zip", "targets": ["pt-BR"]}
    assert pairs(tmp_path, "pt-BR", **corpus) == [("Bus", "Ônibus")]
    (tmp_path / "x.zip").write_bytes((tmp_path / "x.zip").read_bytes()[:50])
    assert "x.zip: no readable zip" in refused(tmp_path, "pt-BR", **corpus)


def test_json_array(tmp_path: Path) -> None:
    items = [{"t": {"en": "Rain", "de": "Regen"}}, {"t": {"en": 1, "de": "x"}}, {"t": 3.5}, 7]
    (tmp_path / "x.json").write_text(json.dumps(items))
    corpus = {"format": "json", "path": "x.json", "columns": ["t.{source}", "t.{target}"]}
    found_items = found(tmp_path, **corpus)
    assert isinstance(found_items[0], Row)
    assert (found_items[0].target, found_items[0].place) == ("Regen", f"{tmp_path}/x.json:1")
    assert reasons(found_items) == {"not a string": 1, "missing value": 2}
    for text in ("", "[", "[{]", '{"a": 1}', "[" * 100_000, '[{"t": 1}'):
        (tmp_path / "x.json").write_text(text)
        assert "x.json: no" in refused(tmp_path, **corpus)


# --- text without translation -----------------------------------------------------------------


def test_text_has_one_sentence_on_both_sides(tmp_path: Path) -> None:
    (tmp_path / "mono.de").write_text('Regen fällt.\n\nEs "schneit\tnicht.\n')
    items = found(tmp_path, format="text", path="mono.{target}")
    first = items[0]
    assert isinstance(first, Row)
    assert first[:4] == ("Regen fällt.", "Regen fällt.", "de", "de")
    (tmp_path / "x.tsv").write_text("id\ttext\n1\tRegen\n")
    assert pairs(tmp_path, format="text", path="x.tsv", header=True, columns=["text"]) == [
        ("Regen", "Regen")
    ]
    assert "give one, the text" in refused(
        tmp_path, format="text", path="x.tsv", header=True, columns=[0, 1]
    )


def test_text_in_a_store(tmp_path: Path) -> None:
    lines = [f"Satz Nummer {chr(97 + i % 26)}{chr(97 + i // 26)} ist lang." for i in range(200)]
    (tmp_path / "mono.de").write_text("\n".join(lines + lines[:3]))
    corpus = CorpusConfig(format="text", path="mono.{target}", targets=["de"])
    config = DataConfig(root=str(tmp_path), corpora={"mono": corpus}, dev_fraction=0.2)
    store = prepare_pairs(config, set(), tmp_path / "cache")
    assert (store.source == store.translation).all()
    assert store.n_sentences == len(store) == 200
    assert [store.languages[i] for i in store.language[:3]] == ["de"] * 3
    assert (store.groups[0].source_lang, store.groups[0].target_lang) == ("de", "de")


# --- one text for several languages -----------------------------------------------------------


def test_languages_are_not_read_from_the_same_text() -> None:
    for corpus in (
        {"format": "tsv", "path": "x.tsv"},
        {"format": "aligned", "path": "x.{source}", "target_path": "y"},
        {"format": "json", "path": "x.json", "columns": ["en", "de"]},
        {"format": "android", "path": "a.xml", "target_path": "b.xml"},
    ):
        with pytest.raises(ValueError, match="de, fr would all be read from the same text"):
            CorpusConfig.model_validate({"targets": ["de", "fr"], **corpus})
    for corpus in (
        {"format": "tsv", "path": "x.{pair}.tsv"},
        {"format": "json", "path": "x.json", "columns": ["{source}", "{target}"]},
        {"format": "dataset", "path": "x", "subset": "{source}-{target}"},
        {"format": "tmx", "path": "x.tmx"},
    ):
        CorpusConfig.model_validate({"targets": ["de", "fr"], **corpus})
