"""Files that are called what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sqlite3
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.config.labelled import LabelledConfig
from mlkd.data.pairs import prepare_labelled, prepare_pairs
from mlkd.data.readers import read
from mlkd.data.rows import Reject, lines
from mlkd.data.sources import source_files
from mlkd.deploy import mining
from mlkd.deploy.web import inputs as web
from mlkd.output.errors import UserError

TEXT = "A cat sleeps.\tEine Katze schläft.\nRain\tRegen\n" * 20


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("pairs.tsv", TEXT)
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"en": ["A cat."], "de": ["Eine Katze."]}), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (gzip.compress(TEXT.encode()), "packed with gzip; call it .gz"),
        (bz2.compress(TEXT.encode()), "packed with bzip2; call it .bz2"),
        (lzma.compress(TEXT.encode()), "packed with xz; call it .xz"),
        (archive(), "a ZIP archive; unpack it"),
        (parquet(), "a Parquet file; take its text out"),
        (TEXT.encode("utf-16"), "UTF-16 where UTF-8 is read; convert it"),
        (TEXT.encode("utf-16-le"), "UTF-16 where UTF-8 is read; convert it"),
        (TEXT.encode("utf-16-be"), "UTF-16 where UTF-8 is read; convert it"),
        (TEXT.encode("utf-32"), "UTF-32 where UTF-8 is read; convert it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_is_called_what_it_is(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(lines(path))
    assert str(caught.value) == f"{path}: {name}"


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (archive(), "a ZIP archive; unpack it, or give data.corpora.c.format=moses"),
        (parquet(), "a Parquet file; take its text out, or give data.corpora.c.format=parquet"),
        (gzip.compress(TEXT.encode()), "packed with gzip; call it .gz"),
    ],
    ids=["zip", "parquet", "gzip"],
)
def test_only_pairs_are_told_of_a_format_that_reads_the_file(
    tmp_path: Path, content: bytes, advice: str
) -> None:
    """Neither labelled text nor what is mined or searched can have it."""
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    pairs = DataConfig.model_validate(
        {"corpora": {"c": {"format": "tsv", "path": str(path), "targets": ["de"]}}}
    )
    with pytest.raises(UserError) as caught:
        prepare_pairs(pairs, (), tmp_path / "cache")
    assert str(caught.value) == f"{path}: {advice}"
    graded = LabelledConfig.model_validate(
        {"kind": "similarity", "format": "tsv", "path": str(path), "language": "en"}
    )
    with pytest.raises(UserError) as caught:
        prepare_labelled(pairs, {"c": graded}, (), (), tmp_path / "cache")
    assert "format" not in str(caught.value)
    for read_texts in (web.read_texts, mining.read):
        with pytest.raises(UserError) as caught:
            read_texts(path)
        assert str(caught.value) == f"{path}: {advice.partition(', or')[0]}"


def test_a_database(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x") as base:
        base.execute("create table pairs (en text)")
    base.close()
    with pytest.raises(UserError, match="x: a database; take its text out"):
        list(lines(tmp_path / "x"))


FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    "tsv": ("a b\tc d\n", {}),
    "csv": ("a b,c d\n", {}),
    "aligned": ("a b\n", {"target_path": "x"}),
    "text": ("a b\n", {}),
    "jsonl": ('{"en": "a", "de": "b"}\n', {"columns": ["en", "de"]}),
    "json": ('[{"en": "a", "de": "b"}]', {"columns": ["en", "de"]}),
    "properties": ("a = b\n", {"target_path": "x"}),
    "fluent": ("a = b\n", {"target_path": "x"}),
    "gettext": ('msgid "a"\nmsgstr "b"\n', {}),
    "tmx": ("<tmx/>", {}),
    "strings": ('"a" = "b";\n', {"target_path": "x"}),
    "xcstrings": ("{}", {}),
}
WIDE = {"tmx", "strings", "xcstrings"}
"""Formats that may be UTF-16."""


def told(root: Path, name: str, content: bytes, keys: dict[str, object]) -> str:
    path = root / f"x{SUFFIX.get(name, '')}"
    path.write_bytes(content)
    values = {"format": name, "path": path.name, "targets": ["de"], **keys}
    if "target_path" in keys:
        values["target_path"] = path.name
    corpus = CorpusConfig.model_validate(values)
    with pytest.raises(UserError) as caught:
        list(read("c", corpus, "de", source_files("c", corpus, "de", str(root))))
    return str(caught.value).replace(f"{path}: ", "")


SUFFIX = {"gettext": ".po"}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_text_knows_a_packed_file(tmp_path: Path, name: str) -> None:
    text, keys = FORMATS[name]
    packed = told(tmp_path, name, gzip.compress(text.encode()), keys)
    assert packed == "packed with gzip; call it .gz"


@pytest.mark.parametrize("name", sorted(set(FORMATS) - WIDE))
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_every_format_of_utf_8_knows_utf_16(tmp_path: Path, name: str, encoding: str) -> None:
    text, keys = FORMATS[name]
    wide = told(tmp_path, name, (text * 4).encode(encoding), keys)
    assert wide == "UTF-16 where UTF-8 is read; convert it"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        ("\ufeff" + TEXT).encode(),
        TEXT.encode("latin-1"),
        b"",
        b"\n",
        b"PK\tBZh\n",
        b"a\0b\n",
        b"\0\0\0\0\0\0\0\0\0\0",
        "ÿþ is no mark\tx\n".encode(),
        "ねこ\t猫\n".encode("shift-jis"),
    ],
)
def test_text_stays_text(tmp_path: Path, content: bytes) -> None:
    """Lines that are damaged or in another encoding are rejected one by one, as before."""
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content)
    found = [line for _, line in lines(path)]
    assert len(found) == content.count(b"\n") or not content.endswith(b"\n")
    assert all(isinstance(line, str | Reject) for line in found)


def test_utf_16_within_gzip(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv.gz"
    path.write_bytes(gzip.compress(TEXT.encode("utf-16")))
    with pytest.raises(UserError, match="UTF-16 where UTF-8 is read"):
        list(lines(path))
