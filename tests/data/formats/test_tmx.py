"""Translation memories, and what a sentence is without its inline elements."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import psutil
import pytest
from corpora import found, pairs, reasons, refused

from mlkd.config.inputs import CorpusConfig
from mlkd.data.readers import read
from mlkd.data.rows import Row


def unit(**variants: str) -> str:
    """A unit with its variants in order; ``en_US`` stands for ``en-US``."""
    return "".join(
        ["<tu>"]
        + [
            f'<tuv xml:lang="{code.replace("_", "-")}"><seg>{text}</seg></tuv>'
            for code, text in variants.items()
        ]
        + ["</tu>"]
    )


def tmx(*units: str, attribute: str = "xml:lang") -> str:
    body = "".join(units).replace("xml:lang", attribute)
    return (
        '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE tmx SYSTEM "tmx14.dtd">'
        f'<tmx version="1.4"><header srclang="*all*"/><body>{body}</body></tmx>'
    )


def memory(root: Path, *units: str, target: str = "de", **more: Any) -> list[tuple[str, str]]:
    (root / "x.tmx").write_text(tmx(*units), encoding="utf-8")
    items = found(root, target, format="tmx", path="x.tmx", targets=[target], **more)
    assert set(reasons(items)) <= {"untranslated"}
    return [(item.source, item.target) for item in items if isinstance(item, Row)]


def test_tmx_takes_each_language_from_its_own_variant(tmp_path: Path) -> None:
    units = (
        unit(fr="Un chien", de="Ein Hund", en="A dog"),
        unit(de="Regen", en="Rain", fr="Pluie"),
        unit(en="Snow", fr="Neige"),
        unit(fr="Vent", de="Wind"),
    )
    assert memory(tmp_path, *units) == [("A dog", "Ein Hund"), ("Rain", "Regen")]
    assert memory(tmp_path, *units, target="fr") == [
        ("A dog", "Un chien"), ("Rain", "Pluie"), ("Snow", "Neige")
    ]  # fmt: skip
    items = found(tmp_path, format="tmx", path="x.tmx")
    assert reasons(items) == {"untranslated": 2}


def test_tmx_regions(tmp_path: Path) -> None:
    wide = unit(de_AT="Jänner", en_gb="January (UK)", EN_US="January", de="Januar")
    assert memory(tmp_path, wide) == [("January (UK)", "Januar")]
    assert memory(tmp_path, wide, source="en-US") == [("January", "Januar")]
    assert memory(tmp_path, wide, target="de-AT") == [("January (UK)", "Jänner")]
    assert memory(tmp_path, unit(EN_US="Rain", de_AT="Regen", de_CH="Räge")) == [("Rain", "Regen")]
    portuguese = unit(en="Bus", pt_PT="Autocarro")
    assert memory(tmp_path, portuguese, target="pt") == [("Bus", "Autocarro")]
    (tmp_path / "x.tmx").write_text(tmx(portuguese), encoding="utf-8")
    message = refused(tmp_path, "pt-BR", format="tmx", path="x.tmx", targets=["pt-BR"])
    assert message == "data.corpora.c: no en-pt-BR in x.tmx; its languages are en, pt-PT"


def test_chinese_by_script_or_region(tmp_path: Path) -> None:
    both = unit(en="Software", zh_TW="軟體", zh_CN="软件")
    assert memory(tmp_path, both, target="zh-Hans") == [("Software", "软件")]
    assert memory(tmp_path, both, target="zh-Hant") == [("Software", "軟體")]
    assert memory(tmp_path, both, target="zh") == [("Software", "軟體")]


def test_tmx_1_1_has_a_plain_attribute(tmp_path: Path) -> None:
    text = tmx(unit(EN_US="Rain", DE_DE="Regen"), attribute="lang")
    (tmp_path / "x.tmx").write_text(text, encoding="utf-8")
    assert pairs(tmp_path, format="tmx", path="x.tmx") == [("Rain", "Regen")]


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1"])
def test_tmx_in_other_encodings_and_packed(tmp_path: Path, encoding: str) -> None:
    data = tmx(unit(en="Rain", de="Größe")).replace("utf-8", encoding).encode(encoding)
    (tmp_path / "x.tmx.gz").write_bytes(gzip.compress(data))
    assert pairs(tmp_path, format="tmx", path="x.tmx.gz") == [("Rain", "Größe")]


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        ('Press <bpt i="1">&lt;b&gt;</bpt>OK<ept i="1">&lt;/b&gt;</ept>.', "Press OK."),
        ('one<ph x="1">&lt;br/&gt;</ph>two', "one two"),
        ('one <ph x="1">{1}</ph> two', "one two"),
        ('one<ph x="1"/><it pos="begin">x</it>two', "one two"),
        ('one<ph x="1"/>, two', "one, two"),
        ('one<ph x="1"/>', "one"),
        ('End.<ph x="1"/>Next', "End. Next"),
        ("<ut>{\\b </ut>bold<ut>}</ut>", "bold"),
        ("un<hi>believ</hi>able", "unbelievable"),
        ("a<ph>see <sub>a footnote</sub></ph> b", "a b"),
        ("中文<ph/>中文", "中文中文"),
        ("H<hi>2</hi>O <!-- no text --><?x y?>is water", "H2O is water"),
        ("&lt;b&gt;Tom&lt;/b&gt; &amp;amp; Jerry", "Tom & Jerry"),
    ],
)
def test_inline_elements(tmp_path: Path, segment: str, text: str) -> None:
    assert memory(tmp_path, unit(en=segment, de="x")) == [(text, "x")]


def test_a_large_memory_is_read_in_little_memory(tmp_path: Path) -> None:
    word = "lorem ipsum " * 100
    (tmp_path / "x.tmx").write_text(tmx(*[unit(en=word, de=word + "x")] * 6_000))
    corpus = CorpusConfig(format="tmx", path="x.tmx", targets=["de"])
    rows = read("c", corpus, "de", [tmp_path / "x.tmx"])
    assert isinstance(next(rows), Row)
    before = peak = psutil.Process().memory_info().rss
    for number, _ in enumerate(rows):
        if number % 200 == 0:
            peak = max(peak, psutil.Process().memory_info().rss)
    assert (tmp_path / "x.tmx").stat().st_size > 14 << 20
    assert peak - before < 5 << 20


def test_broken_and_hostile_xml_is_one_line(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    good = tmx(unit(en="Rain", de="Regen"))
    external = f'<!DOCTYPE tmx [<!ENTITY e SYSTEM "file://{secret}">]>'
    bomb = "".join(
        f'<!ENTITY {b} "{f"&{a};" * 20}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    texts = {
        "cut": good[:-20],
        "html": "<html>404",
        "empty": "",
        "external": external + tmx(unit(en="&e;", de="x")).split('tmx14.dtd">')[1],
        "bomb": f'<!DOCTYPE tmx [<!ENTITY a "{"a" * 100}">{bomb}]>'
        + tmx(unit(en="&i;", de="x")).split('tmx14.dtd">')[1],
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.tmx").write_text(text)
        message = refused(tmp_path, format="tmx", path=f"{name}.tmx")
        assert message.startswith(f"{name}.tmx: no readable XML")
    body = tmx(unit(en="&brand;!", de="x")).split('tmx14.dtd">')[1]
    (tmp_path / "x.tmx").write_text(f'<!DOCTYPE tmx [<!ENTITY brand "Foo">]>{body}')
    assert pairs(tmp_path, format="tmx", path="x.tmx") == [("Foo!", "x")]


def test_control_characters_are_dropped(tmp_path: Path) -> None:
    assert memory(tmp_path, unit(en="Ra\x02in\x1f", de="Regen")) == [("Rain", "Regen")]


def test_a_folder_of_memories(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one.tmx").write_text(tmx(unit(en="One", de="Eins")))
    (tmp_path / "a" / "b" / "two.tmx.gz").write_bytes(
        gzip.compress(tmx(unit(en="Two", de="Zwei"), unit(en="Two", fr="Deux")).encode())
    )
    (tmp_path / "a" / "french.tmx").write_text(tmx(unit(en="One", fr="Un")))
    items = found(tmp_path, format="tmx", path="a")
    assert {item.target for item in items if isinstance(item, Row)} == {"Eins", "Zwei"}
