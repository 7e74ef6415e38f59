"""Formats with a file a language: Android, properties, Apple, Fluent; and string catalogues."""

from __future__ import annotations

import json
import plistlib
from pathlib import Path
from typing import Any

import pytest
from corpora import found, reasons, refused

from mlkd.data.rows import Row


def both(root: Path, format: str, english: str | bytes, german: str | bytes) -> list[Any]:
    for code, text in (("en", english), ("de", german)):
        data = text.encode() if isinstance(text, str) else text
        (root / f"x.{code}").write_bytes(data)
    return found(root, format=format, path="x.{source}", target_path="x.{target}")


def rows(items: list[Any]) -> list[tuple[str, str]]:
    return [(item.source, item.target) for item in items if isinstance(item, Row)]


# --- Android ----------------------------------------------------------------------------------


def resources(*items: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><resources '
        f'xmlns:xliff="urn:oasis:names:tc:xliff:document:1.2">{"".join(items)}</resources>'
    )


def test_android(tmp_path: Path) -> None:
    english = resources(
        '<string name="pair">Tom &amp; <b>Jerry</b></string>',
        '<string name="id" translatable="false">Shop</string>',
        '<string name="same">@string/pair</string>',
        '<string name="ok">@*android:string/ok</string>',
        '<string name="there">Some text</string>',
        '<string name="hi">Hello, <xliff:g id="name">%1$s</xliff:g>!</string>',
        r'<string name="escaped">It\'s \"here\"\n  and\u0020there</string>',
        '<string name="cdata"><![CDATA[<b>Bold</b> &amp; it]]></string>',
        '<string name="missing">Missing</string>',
        '<string name="copied">Copied text</string>',
        '<string-array name="days"><item>Monday</item><item>Tuesday</item></string-array>',
        '<plurals name="n"><item quantity="one">%d file</item><item quantity="other">%d files'
        "</item></plurals>",
    )
    german = resources(
        '<plurals name="n"><item quantity="other">%d Dateien</item></plurals>',
        '<string-array name="days"><item>Montag</item><item>Dienstag</item></string-array>',
        '<string name="copied">Copied text</string>',
        '<string name="hi">Hallo, <xliff:g id="name">%1$s</xliff:g>!</string>',
        '<string name="pair"><b>Tom</b> &amp; Jerry</string>',
        '<string name="id">Laden</string>',
        '<string name="same">Gleich</string>',
        '<string name="ok">Gut</string>',
        '<string name="there">@com.example:string/other</string>',
        r'<string name="escaped">"Er\'s  "hier</string>',
        '<string name="cdata">Fett</string>',
        '<string name="old">Alt</string>',
    )
    items = both(tmp_path, "android", english, german)
    assert rows(items) == [
        ("Tom & Jerry", "Tom & Jerry"),
        ("Hello, %1$s!", "Hallo, %1$s!"),
        ('It\'s "here"\n and there', "Er's  hier"),
        ("Bold & it", "Fett"),
        ("Monday", "Montag"),
        ("Tuesday", "Dienstag"),
        ("%d files", "%d Dateien"),
    ]
    assert reasons(items) == {"not translatable": 4, "untranslated": 3, "obsolete": 1}


def test_android_names_may_stand_there_twice(tmp_path: Path) -> None:
    """As for products; one that is not to be translated once is not to be translated."""
    fixed = '<string name="id" translatable="false">Shop</string>'
    english = resources(fixed, fixed, '<string name="id">Shops</string>', '<string name="a">A b'
                        '</string><string name="a" product="tablet">A b c</string>')  # fmt: skip
    items = both(tmp_path, "android", english, resources('<string name="a">Ein b c</string>'))
    assert rows(items) == [("A b c", "Ein b c")]
    assert reasons(items) == {"not translatable": 1}


def test_android_needs_both_files(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(resources())
    message = refused(tmp_path, format="android", path="x.xml")
    assert message == "data.corpora.c.target_path is empty: format android needs one"


# --- properties -------------------------------------------------------------------------------


def test_properties(tmp_path: Path) -> None:
    english = "# comment\na.b=Caf\\u00e9 \\: open\nlong = one \\\n   two\nargs=It''s {0}\nno=x''y\n"
    german = (
        "! Kommentar\nlong: eins \\\n  zwei\na.b = Café auf\nargs Das ist''s {0}\nno=x\nold=Alt\n"
    )
    expected = [
        ("Café : open", "Café auf"), ("one two", "eins zwei"), ("It's {0}", "Das ist's {0}"),
        ("x''y", "x"),
    ]  # fmt: skip
    items = both(tmp_path, "properties", english, german)
    assert rows(items) == expected
    assert reasons(items) == {"obsolete": 1}
    items = both(tmp_path, "properties", english, german.encode("latin-1"))
    assert rows(items) == expected


# --- Apple ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_strings(tmp_path: Path, encoding: str) -> None:
    english = r"""/* "no" = "text"; */
"a \"b\"" = "Say \"hi\"\nnow";"two"="lines
of";
bare = "x y";
"""
    german = r""""two" = "Zeilen
von"; // c = "d";
bare = "Gr\U00fc\U00dfe \UD83D\UDE00";
"a \"b\"" = "Sag; hi";
"""
    items = both(tmp_path, "strings", english.encode(encoding), german.encode(encoding))
    assert rows(items) == [
        ('Say "hi"\nnow', "Sag; hi"), ("lines\nof", "Zeilen\nvon"), ("x y", "Grüße 😀")
    ]  # fmt: skip


def test_strings_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.en").write_text('"a" = "b";\n"c" = "d"\n')
    (tmp_path / "x.de").write_text("")
    corpus = {"format": "strings", "path": "x.en", "target_path": "x.de"}
    assert refused(tmp_path, **corpus) == 'x.en:2: no message; expected "key" = "text";'
    for kind in (plistlib.FMT_XML, plistlib.FMT_BINARY):
        (tmp_path / "x.en").write_bytes(plistlib.dumps({"a": "b"}, fmt=kind))
        assert refused(tmp_path, **corpus).startswith("x.en: a property list; write it as text")


def catalogue(strings: dict[str, Any], source: str = "en") -> str:
    return json.dumps({"sourceLanguage": source, "version": "1.0", "strings": strings})


def text(value: str, state: str = "translated") -> dict[str, Any]:
    return {"stringUnit": {"state": state, "value": value}}


def test_xcstrings(tmp_path: Path) -> None:
    def plural(*forms: str) -> dict[str, Any]:
        names = ("one", "other")[-len(forms) :]
        return {"variations": {"plural": {n: text(f) for n, f in zip(names, forms, strict=True)}}}

    strings: dict[str, Any] = {
        "Rain": {"localizations": {"de": text("Regen"), "fr": text("Pluie")}},
        "hello.key": {"localizations": {"en": text("Hello"), "de": text("Hallo")}},
        "only.key": {"localizations": {"de": text("Nur")}},
        "New": {"localizations": {"de": text("Neu", "new")}},
        "Review": {"localizations": {"de": text("Sicht", "needs_review")}},
        "Old": {"extractionState": "stale", "localizations": {"de": text("Alt")}},
        "Brand": {"shouldTranslate": False, "localizations": {"de": text("Marke")}},
        "Snow": {"localizations": {"fr": text("Neige")}},
        "%lld files": {
            "localizations": {
                "en": plural("%lld file", "%lld files"), "de": plural("%lld Datei", "%lld Dateien")
            }
        },
        "%lld trees": {
            "localizations": {"en": plural("%lld tree", "%lld trees"), "de": plural("%lld Bäume")}
        },
        "%lld cats": {"localizations": {"de": plural("%lld Katze", "%lld Katzen")}},
        "": {},
    }  # fmt: skip
    (tmp_path / "x.xcstrings").write_text(catalogue(strings))
    items = found(tmp_path, format="xcstrings", path="x.xcstrings", targets=["de", "fr"])
    assert rows(items) == [
        ("Rain", "Regen"), ("Hello", "Hallo"), ("%lld file", "%lld Datei"),
        ("%lld files", "%lld Dateien"), ("%lld trees", "%lld Bäume"),
        ("%lld cats", "%lld Katzen"),
    ]  # fmt: skip
    assert reasons(items) == {
        "symbolic id": 1, "unfinished": 2, "obsolete": 1, "not translatable": 1, "untranslated": 3
    }  # fmt: skip
    corpus: dict[str, Any] = {"format": "xcstrings", "path": "x.xcstrings"}
    assert "its languages are en, de, fr" in refused(tmp_path, "es", **corpus, targets=["es"])
    (tmp_path / "x.xcstrings").write_text(catalogue(strings, "fr"))
    assert "no en-de" in refused(tmp_path, **corpus)
    for bad in ("[]", "{", '{"strings": 3}', '{"a": 1}', "[" * 100_000):
        (tmp_path / "x.xcstrings").write_text(bad)
        if bad != '{"strings": 3}':
            assert "x.xcstrings" in refused(tmp_path, **corpus)


# --- Fluent -----------------------------------------------------------------------------------


def test_fluent(tmp_path: Path) -> None:
    english = """### A file
-brand = Shop
hello = Hello, { $name }!
save = Save
    .title = Save the { -brand }
    .accesskey = S
    .style = width: 40em
only-attributes =
    .label = Label
files = { $n ->
    [one] One file
   *[other] { $n } files
}
plain-there = Plain
quote = A {"{"}brace{ "}" }
lines = One
    two
"""
    german = """lines =
    Eins
    zwei
quote = Eine {"\\u007B"}Klammer
plain-there = { $n ->
   *[other] x
}
files = Dateien
only-attributes =
    .label = Schild
save = Sichern
    .title = { -brand } sichern
    .accesskey = i
    .style = width: 55em
hello = Hallo, { $name }!
this is junk
"""
    items = both(tmp_path, "fluent", english, german)
    assert rows(items) == [
        ("Hello, { $name }!", "Hallo, { $name }!"), ("Save", "Sichern"),
        ("Save the { -brand }", "{ -brand } sichern"), ("Label", "Schild"),
        ("A {brace}", "Eine {Klammer"), ("One\ntwo", "Eins\nzwei"),
    ]  # fmt: skip
    assert reasons(items) == {"selectors": 2, "untranslated": 3, "no message": 1}
