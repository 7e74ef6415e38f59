"""TMX, XLIFF and Qt: what is a pair, and what a sentence is without its inline elements."""

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

# --- TMX --------------------------------------------------------------------------------------


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
        ('one <ph x="1">{1}</ph> two', "one  two"),
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


def test_a_folder_of_memories(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one.tmx").write_text(tmx(unit(en="One", de="Eins")))
    (tmp_path / "a" / "b" / "two.tmx.gz").write_bytes(
        gzip.compress(tmx(unit(en="Two", de="Zwei"), unit(en="Two", fr="Deux")).encode())
    )
    (tmp_path / "a" / "french.tmx").write_text(tmx(unit(en="One", fr="Un")))
    items = found(tmp_path, format="tmx", path="a")
    assert {item.target for item in items if isinstance(item, Row)} == {"Eins", "Zwei"}


# --- XLIFF 1.x --------------------------------------------------------------------------------


def xliff(*units: str, source: str = "en", target: str = ' target-language="de"') -> str:
    return (
        '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">'
        f'<file source-language="{source}"{target} original="x" datatype="plaintext"><body>'
        f"<group>{''.join(units)}</group></body></file></xliff>"
    )


def job(root: Path, *units: str, **more: Any) -> tuple[list[tuple[str, str]], dict[str, int]]:
    (root / "x.xlf").write_text(xliff(*units), encoding="utf-8")
    items = found(root, format="xliff", path="x.xlf", **more)
    rows = [(item.source, item.target) for item in items if isinstance(item, Row)]
    return rows, dict(reasons(items))


def trans(source: str, target: str | None, state: str = "", attributes: str = "") -> str:
    state = f' state="{state}"' if state else ""
    translated = "" if target is None else f"<target{state}>{target}</target>"
    return f'<trans-unit id="1"{attributes}><source>{source}</source>{translated}</trans-unit>'


@pytest.mark.parametrize("state", ["final", "translated", "signed-off"])
def test_finished_states_are_pairs(tmp_path: Path, state: str) -> None:
    assert job(tmp_path, trans("Rain", "Regen", state)) == ([("Rain", "Regen")], {})
    assert job(tmp_path, trans("Radio", "Radio", state)) == ([("Radio", "Radio")], {})


@pytest.mark.parametrize(
    ("state", "attributes", "reason"),
    [
        ("new", "", "unfinished"),
        ("needs-translation", "", "unfinished"),
        ("needs-adaptation", "", "unfinished"),
        ("needs-l10n", "", "unfinished"),
        ("needs-review-translation", ' approved="yes"', "unfinished"),
        ("", ' approved="no"', "unfinished"),
        ("translated", ' approved="no"', "unfinished"),
        ("final", ' translate="no"', "not translatable"),
    ],
)
def test_unfinished_units_are_counted_apart(
    tmp_path: Path, state: str, attributes: str, reason: str
) -> None:
    assert job(tmp_path, trans("Rain", "Regen", state, attributes)) == ([], {reason: 1})


def test_units_without_a_state(tmp_path: Path) -> None:
    units = (
        trans("Rain", "Regen"), trans("Radio", " Radio"), trans("Snow", ""), trans("Wind", None),
        trans("Sun", "Sonne", "x-ours"), trans("Taxi", "Taxi", "", ' approved="yes"'),
    )  # fmt: skip
    assert job(tmp_path, *units) == (
        [("Rain", "Regen"), ("Sun", "Sonne"), ("Taxi", "Taxi")], {"untranslated": 3}
    )  # fmt: skip


def test_segments_are_paired_by_mid(tmp_path: Path) -> None:
    unit = """<trans-unit id="1"><source>One. Two. Three.</source>
      <seg-source><g id="1"><mrk mtype="seg" mid="0">One.</mrk> <mrk mtype="seg" mid="1">Two.</mrk>
      <mrk mtype="seg" mid="2">Three.</mrk></g></seg-source>
      <target><mrk mtype="seg" mid="1">Zwei.</mrk> <mrk mtype="seg" mid="0"><mrk mtype="term">Eins
      </mrk>.</mrk><mrk mtype="seg" mid="2"/></target>
      <alt-trans><source>One.</source><target state="final">Falsch.</target></alt-trans>
    </trans-unit>"""
    rows, counts = job(tmp_path, unit)
    assert [tuple(" ".join(side.split()) for side in row) for row in rows] == [
        ("One.", "Eins ."), ("Two.", "Zwei.")
    ]  # fmt: skip
    assert counts == {"untranslated": 1}


def test_alternatives_are_never_read(tmp_path: Path) -> None:
    unit = (
        '<trans-unit id="1"><source>Rain</source><alt-trans><source>Rain</source>'
        '<target state="final">Schnee</target></alt-trans></trans-unit>'
    )
    assert job(tmp_path, unit) == ([], {"untranslated": 1})


def test_segments_of_trados_have_states_of_their_own(tmp_path: Path) -> None:
    unit = """<trans-unit id="1" xmlns:sdl="http://sdl.com/FileTypes/SdlXliff/1.0"><source>A. B. C.
      </source><seg-source><mrk mtype="seg" mid="1">One.</mrk><mrk mtype="seg" mid="2">Two.</mrk>
      <mrk mtype="seg" mid="3">Three.</mrk></seg-source><target><mrk mtype="seg" mid="1">Eins.</mrk>
      <mrk mtype="seg" mid="2">Zwo.</mrk><mrk mtype="seg" mid="3">Drei.</mrk></target>
      <sdl:seg-defs><sdl:seg id="1" conf="Translated"/><sdl:seg id="2" conf="Draft"/>
      <sdl:seg id="3"/></sdl:seg-defs></trans-unit>"""
    assert job(tmp_path, unit) == ([("One.", "Eins.")], {"unfinished": 2})


def test_inline_elements_of_xliff(tmp_path: Path) -> None:
    unit = trans(
        'Line<x id="1"/>two <g id="2">b<g id="3">ol</g>d</g><bx id="4"/>, '
        '<bpt id="5">&lt;i&gt;</bpt>it<ept id="5">&lt;/i&gt;</ept><ph id="6">%s</ph>.',
        "Zeile",
    )
    assert job(tmp_path, unit) == ([("Line two bold, it.", "Zeile")], {})


def test_other_languages_are_one_line(tmp_path: Path) -> None:
    corpus: dict[str, Any] = {"format": "xliff", "path": "x.xlf"}
    french = xliff(trans("Rain", "Pluie"), target=' target-language="fr-FR"')
    (tmp_path / "x.xlf").write_text(french)
    message = "data.corpora.c: no en-de in x.xlf; its languages are en, fr-FR"
    assert refused(tmp_path, **corpus) == message
    (tmp_path / "x.xlf").write_text(xliff(trans("Pluie", "Regen"), source="fr"))
    assert "its languages are fr, de" in refused(tmp_path, **corpus)
    (tmp_path / "x.xlf").write_text(xliff(trans("Rain", "Regen"), target=""))
    assert pairs(tmp_path, **corpus) == [("Rain", "Regen")]
    assert "{target} must be in the path" in refused(tmp_path, **corpus, targets=["de", "fr"])


def test_a_folder_of_jobs_in_several_languages(tmp_path: Path) -> None:
    for language, text in (("de", "Regen"), ("fr", "Pluie")):
        job = xliff(trans("Rain", text), target=f' target-language="{language}"')
        (tmp_path / f"job-{text}.xlf").write_text(job)
    (tmp_path / "app.de.xlf").write_text(xliff(trans("Sun", "Sonne"), target=""))
    corpus: dict[str, Any] = {"format": "xliff", "path": ".", "targets": ["de", "fr"]}
    assert pairs(tmp_path, "de", **corpus) == [("Sun", "Sonne"), ("Rain", "Regen")]
    assert pairs(tmp_path, "fr", **corpus) == [("Rain", "Pluie")]


# --- XLIFF 2.x --------------------------------------------------------------------------------


def test_xliff_2(tmp_path: Path) -> None:
    def segment(source: str, target: str | None, state: str = "") -> str:
        state = f' state="{state}"' if state else ""
        translated = "" if target is None else f"<target>{target}</target>"
        return f"<segment{state}><source>{source}</source>{translated}</segment>"

    segments = [
        segment("A", "a", "translated"), segment("B", "b", "reviewed"), segment("C", "c", "final"),
        "<ignorable><source> </source><target> </target></ignorable>",
        segment("D", "d", "initial"), segment("Radio", "Radio"), segment("E", "e"),
        segment("F", None), segment("Taxi", "Taxi", "final"),
        segment('<pc id="1">b<mrk id="m">ol</mrk>d</pc> x<ph id="2"/>y <sm id="n"/>t<em/>', "G",
                "final"),
    ]  # fmt: skip
    (tmp_path / "x.xlf").write_text(
        '<xliff version="2.1" srcLang="en-US" trgLang="de-DE" xmlns="urn:oasis:names:tc:xliff:'
        f'document:2.0"><file id="f"><unit id="1">{"".join(segments)}</unit>'
        f'<group id="g" translate="no"><unit id="2">{segment("H", "h", "final")}</unit>'
        f'<unit id="3" translate="yes">{segment("I", "i", "final")}</unit></group></file></xliff>'
    )
    items = found(tmp_path, format="xliff", path="x.xlf")
    assert [(item.source, item.target) for item in items if isinstance(item, Row)] == [
        ("A", "a"), ("B", "b"), ("C", "c"), ("E", "e"), ("Taxi", "Taxi"), ("bold x y t", "G"),
        ("I", "i"),
    ]  # fmt: skip
    assert reasons(items) == {"unfinished": 1, "untranslated": 2, "not translatable": 1}


# --- Qt ---------------------------------------------------------------------------------------


def message(source: str, translation: str, kind: str = "", attributes: str = "") -> str:
    kind = f' type="{kind}"' if kind else ""
    return (
        f"<message{attributes}><source>{source}</source>"
        f"<translation{kind}>{translation}</translation></message>"
    )


def qt(root: Path, language: str, *messages: str) -> list[Any]:
    (root / "x.ts").write_text(
        f'<?xml version="1.0"?><!DOCTYPE TS><TS version="2.1" language="{language}">'
        f"<context><name>Main</name>{''.join(messages)}</context></TS>"
    )
    code = language.replace("_", "-")
    return found(root, code, format="qt", path="x.ts", targets=[code])


def test_qt_messages(tmp_path: Path) -> None:
    items = qt(
        tmp_path,
        "de_DE",
        message("&amp;File", "&amp;Datei"),
        message("Open", "Schließen", "unfinished"),
        message("Fax", "Fax", "vanished"),
        message("Telex", "Telex", "obsolete"),
        message("Print", ""),
        message('A<byte value="x9"/>tab', 'Ein<byte value="x9"/>Tab'),
        message(
            "Save", "<lengthvariant>Speichern</lengthvariant><lengthvariant>S.</lengthvariant>"
        ),
    )
    assert [(item.source, item.target) for item in items if isinstance(item, Row)] == [
        ("File", "Datei"), ("A\ttab", "Ein\tTab"), ("Save", "Speichern")
    ]  # fmt: skip
    assert reasons(items) == {"unfinished": 1, "vanished": 1, "obsolete": 1, "untranslated": 1}


@pytest.mark.parametrize(
    ("language", "forms", "many"),
    [
        ("de", ["Datei", "Dateien"], "Dateien"),
        ("ja", ["ファイル"], "ファイル"),
        ("ru", ["файл", "файла", "файлов"], "файлов"),
        ("lv", ["fails", "faili", "failu"], "faili"),
        ("lt", ["failas", "failai", "failų"], "failai"),
        ("ar", ["zero", "one", "two", "few", "many", "other"], "few"),
    ],
)
def test_qt_plurals(tmp_path: Path, language: str, forms: list[str], many: str) -> None:
    inner = "".join(f"<numerusform>%n {form}</numerusform>" for form in forms)
    (item,) = qt(tmp_path, language, message("%n files", inner, "", ' numerus="yes"'))
    assert isinstance(item, Row)
    assert item.target == f"%n {many}"


def test_qt_plurals_without_a_rule_are_left_out(tmp_path: Path) -> None:
    inner = "<numerusform>a</numerusform>" * 5
    items = qt(tmp_path, "ru", message("%n files", inner, "", ' numerus="yes"'))
    assert reasons(items) == {"no plural rule": 1}


def test_qt_of_another_language(tmp_path: Path) -> None:
    qt(tmp_path, "fr", message("Rain", "Pluie"))
    assert "its languages are fr" in refused(tmp_path, format="qt", path="x.ts")
