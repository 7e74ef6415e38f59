"""Catalogues of gettext: plural forms, folders, and what is no sentence."""

from __future__ import annotations

import bz2
import gzip
import lzma
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polib
import pytest
from corpora import found, pairs, reasons, refused

from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.data.formats import names
from mlkd.data.formats.sentences import sentence_pair
from mlkd.data.pairs import prepare_pairs
from mlkd.data.rows import Pair, Reject, Row, open_file
from mlkd.data.sources import left_out

SLAVIC = "n%10==1 && n%100!=11 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2"
RULES = {
    # language: rule, which form is for 1 and which for 5
    "en": ("nplurals=2; plural=(n != 1);", 0, 1),
    "fr": ("nplurals=2; plural=n > 1;", 0, 1),
    "ja": ("nplurals=1; plural=0;", 0, 0),
    "ru": (f"nplurals=3; plural={SLAVIC};", 0, 2),
    "uk": (f"nplurals=4; plural=n==1 ? 3 : {SLAVIC};", 3, 2),  # as KDE has it
    "sk": ("nplurals=3; plural=(n==1) ? 1 : (n>=2 && n<=4) ? 2 : 0;", 1, 0),
    "cs": ("nplurals=3; plural=(n==1) ? 0 : (n>=2 && n<=4) ? 1 : 2;", 0, 2),
    "sl": (
        "nplurals=4; plural=(n%100==1 ? 1 : n%100==2 ? 2 : n%100==3 || n%100==4 ? 3 : 0);", 1, 0
    ),
    "sr": (f"nplurals=4; plural=n==1? 3 : {SLAVIC};", 3, 2),
    "lv": (
        "nplurals=3; plural=(n % 10 == 0 || n % 100 >= 11 && n % 100 <= 19) ? 0 : "
        "((n % 10 == 1 && n % 100 != 11) ? 1 : 2);", 1, 2
    ),
    "ar": (
        "nplurals=6; plural=n==0 ? 0 : n==1 ? 1 : n==2 ? 2 : n%100>=3 && n%100<=10 ? 3 : "
        "n%100>=11 && n%100<=99 ? 4 : 5;", 1, 3
    ),
}  # fmt: skip


def plural(header: str | None, forms: int) -> str:
    said = "" if header is None else f'"Plural-Forms: {header}\\n"\n'
    strings = "\n".join(f'msgstr[{i}] "form {chr(97 + i)}"' for i in range(forms))
    return (
        'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n'
        f'{said}\nmsgid "one red apple"\nmsgid_plural "%d red apples"\n{strings}\n'
    )


@pytest.mark.parametrize("language", RULES)
def test_plural_forms_follow_the_rule_of_the_header(tmp_path: Path, language: str) -> None:
    rule, one, many = RULES[language]
    forms = int(rule[9])
    (tmp_path / "x.po").write_text(plural(rule, forms))
    assert pairs(tmp_path, language, format="gettext", path="x.po", targets=[language]) == [
        ("one red apple", f"form {chr(97 + one)}"), ("%d red apples", f"form {chr(97 + many)}")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "forms"),
    [
        (None, 3),  # Latvian orders three forms in two ways
        ("nplurals=INTEGER; plural=EXPRESSION;", 3),
        ("nplurals=2; plural=(n != 1);", 3),
        ("nplurals=3; plural=n/0;", 3),
        ("nplurals=3; plural=n;", 3),
        ("nplurals=3; plural=__import__('os');", 3),
        (f"nplurals=3; plural={'(' * 600}n{')' * 600};", 3),
    ],
)
def test_plurals_without_a_rule_are_left_out_and_counted(
    tmp_path: Path, rule: str | None, forms: int
) -> None:
    (tmp_path / "x.po").write_text(plural(rule, forms))
    items = found(tmp_path, "lv", format="gettext", path="x.po", targets=["lv"])
    counts = reasons(items)
    assert set(counts) == {"no plural rule"}
    assert counts.total() == 2 or rule == "nplurals=3; plural=n;"


@pytest.mark.parametrize(("language", "many"), [("de", 1), ("tr", 1), ("ja", 0)])
def test_two_forms_need_no_rule_in_the_header(tmp_path: Path, language: str, many: int) -> None:
    (tmp_path / "x.po").write_text(plural(None, many + 1))
    assert pairs(tmp_path, language, format="gettext", path="x.po", targets=[language]) == [
        ("one red apple", "form a"), ("%d red apples", f"form {chr(97 + many)}")
    ]  # fmt: skip


# --- folders ----------------------------------------------------------------------------------


def catalogue(path: Path, text: str, language: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    said = f'"Language: {language}\\n"\n' if language else ""
    path.write_text(f'msgid ""\nmsgstr ""\n{said}\nmsgid "I am {text}"\nmsgstr "{text}"\n')


def texts(root: Path, target: str, path: str = ".", **corpus: Any) -> list[str]:
    config = {"format": "gettext", "path": path, "targets": [target], **corpus}
    return [translation for _, translation in pairs(root, target, **config)]


@pytest.mark.parametrize(
    "layout",
    [
        "{}/LC_MESSAGES/app.po", "{}/LC_MESSAGES/gimp/plug-ins/de-interlace.po",
        "{}/LC_MESSAGES/fr.po", "{}/app.po", "po/{}.po", "doc/{}/{}.po", "app-{}.po", "app.{}.po",
        "{}/messages/kde/app.po", "po/app_{}.po", "locale/{}/LC_MESSAGES/os.po",
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", ["de", "pt_BR", "sr@latin", "zh-Hans"])
def test_layouts_of_folders(tmp_path: Path, layout: str, code: str) -> None:
    for language in ("it", "cs", code):
        catalogue(tmp_path / layout.replace("{}", language), f"text {language}")
    (asked,) = CorpusConfig(format="gettext", path="x", targets=[code]).targets
    assert texts(tmp_path, asked) == [f"text {code}"]


def test_regions(tmp_path: Path) -> None:
    for name in ("shop/pt.po", "shop/pt_BR.po", "shop/pt_PT.po", "web/pt_PT.po"):
        catalogue(tmp_path / name, f"in {name[:-3]}")
    assert texts(tmp_path, "pt") == ["in shop/pt", "in web/pt_PT"]
    assert texts(tmp_path, "pt-BR") == ["in shop/pt_BR"]
    corpus = CorpusConfig(format="gettext", path=".", targets=["pt"])
    line = left_out("c", corpus, "pt", str(tmp_path))
    assert line is not None
    assert line.startswith("data.corpora.c: 2 files for pt; 2 left out")
    assert "shop/pt_BR.po, shop/pt_PT.po" in line


@pytest.mark.parametrize(
    ("name", "asked", "others"),
    [
        ("pt-br.po", "pt-BR", ["br"]), ("es-ar.po", "es", ["ar"]), ("x_pt_br.po", "pt-BR", ["br"]),
        ("shop.zh-hans.po", "zh-Hans", []), ("zh-cn/x.po", "zh-Hans", []),
        ("pt_br/messages/x.po", "pt-BR", ["br"]), ("fr-ca/LC_MESSAGES/x.po", "fr", ["ca"]),
        ("x.en-de.po", "de", []), ("x-en-be.po", "be", []), ("sign-in-de.po", "de", ["id"]),
    ],
)  # fmt: skip
def test_regions_in_small_letters(tmp_path: Path, name: str, asked: str, others: list[str]) -> None:
    catalogue(tmp_path / name, "there")
    assert texts(tmp_path, asked) == ["there"]
    for other in others:
        assert "data.corpora.c: no" in refused(
            tmp_path, other, format="gettext", path=".", targets=[other]
        )


def test_what_a_catalogue_says_comes_before_a_name_of_another_language(tmp_path: Path) -> None:
    known = ("messages.po", "de/sign-in.po", "de/sw/x.po", "my/de.po", "lc/LC_MESSAGES/a.po")
    for name in (*known, "x-id.po", "it/app.po"):
        catalogue(tmp_path / name, name, "de")
    catalogue(tmp_path / "zh_TW/x.po", "traditional", "zh")  # less than its name says
    catalogue(tmp_path / "web/zh.po", "simplified", "zh_CN")  # more
    assert sorted(texts(tmp_path, "de")) == sorted(known)
    assert sorted(texts(tmp_path, "zh")) == ["simplified", "traditional"]
    assert texts(tmp_path, "zh-Hans") == ["simplified"]
    catalogue(tmp_path / "shop-de.po", "boutique", "fr")
    line = left_out(
        "c", CorpusConfig(format="gettext", path=".", targets=["de"]), "de", str(tmp_path)
    )
    assert line is not None and line.startswith("data.corpora.c: 5 files for de; 3 left out")
    assert line.endswith(": it/app.po, shop-de.po, x-id.po")


def test_the_exact_region_comes_before_a_file_that_says_it(tmp_path: Path) -> None:
    for name in ("pt.po", "pt_BR.po", "de_DE.UTF-8/LC_MESSAGES/x.po"):
        catalogue(tmp_path / name, name, "de" if name.startswith("de") else "pt_BR")
    for name in ("fr_BE.po", "fr_CA.po", "fr_FR.po"):
        catalogue(tmp_path / name, name)
    assert texts(tmp_path, "pt-BR") == ["pt_BR.po"]
    assert texts(tmp_path, "fr") == ["fr_FR.po"]
    assert texts(tmp_path, "de") == ["de_DE.UTF-8/LC_MESSAGES/x.po"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_catalogues(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    end = {"gzip": ".gz", "bz2": ".bz2", "lzma": ".xz"}[pack.__module__]
    catalogue(tmp_path / "de.po", "there")
    polib.pofile(str(tmp_path / "de.po")).save_as_mofile(str(tmp_path / "it.mo"))
    for name in ("de.po", "it.mo"):
        (tmp_path / f"{name}{end}").write_bytes(pack((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
        language = name[:2]
        assert texts(tmp_path, language) == texts(tmp_path, language, f"{name}{end}") == ["there"]


def test_the_start_of_a_file_is_read_again_only_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(names, "open_file", lambda path: opened.append(path) or open_file(path))
    catalogue(tmp_path / "messages.po", "Regen", "de")
    assert texts(tmp_path, "de") == texts(tmp_path, "de") == ["Regen"]
    assert len(opened) == 1
    catalogue(tmp_path / "messages.po", "Pluie tombe", "fr")
    assert texts(tmp_path, "fr") == ["Pluie tombe"]
    assert len(opened) == 2


def test_files_of_no_language_are_named(tmp_path: Path) -> None:
    for name in ("de.po", "messages.po", "web/other.po"):
        catalogue(tmp_path / name, f"in {name[:-3]}")
    corpus = CorpusConfig(format="gettext", path=".", targets=["de"])
    line = left_out("c", corpus, "de", str(tmp_path))
    assert line is not None
    assert "messages.po, web/other.po" in line
    assert "messages.po, web/other.po" in refused(tmp_path, "es", format="gettext", path=".")
    (tmp_path / "fr").mkdir()
    assert left_out("c", corpus, "de", str(tmp_path / "fr")) is None
    # A folder that is asked for by its language holds nothing else.
    catalogue(tmp_path / "deutsch-de" / "messages.po", "Text")
    assert texts(tmp_path, "de", "deutsch-{target}") == ["Text"]


def test_a_catalogue_of_another_language_is_refused(tmp_path: Path) -> None:
    catalogue(tmp_path / "x.po", "Pluie", "fr")
    assert "no en-de in x.po; its languages are fr" in refused(
        tmp_path, format="gettext", path="x.po"
    )
    for said in ("de", "de_AT", "German", "de_DE.UTF-8"):
        catalogue(tmp_path / "x.po", "Regen", said)
        assert texts(tmp_path, "de", "x.po") == ["Regen"]
    catalogue(tmp_path / "x.po", "Kiša", "sr")  # without the script that it is in
    assert texts(tmp_path, "sr-Latn", "x.po") == ["Kiša"]
    catalogue(tmp_path / "x.po", "Regn", "no")
    assert texts(tmp_path, "nb", "x.po") == ["Regn"]


# --- what is no sentence ----------------------------------------------------------------------


def cleaned(source: str, target: str) -> tuple[str, str]:
    pair = sentence_pair(source, target, "x:1")
    assert isinstance(pair, Pair)
    return pair.source, pair.target


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("_Open", "ö_ffnen", ("Open", "öffnen")),
        ("Cu_t", "_Ausschneiden", ("Cut", "Ausschneiden")),
        ("Save _As…", "Speichern _unter…", ("Save As…", "Speichern unter…")),
        ("_Open", "打开(_O)", ("Open", "打开")),
        ("Open", "打开(_O)", ("Open", "打开")),
        ("Open File", "ファイルを開く (&O)", ("Open File", "ファイルを開く")),
        ("Save As...", "另存为...(&A)", ("Save As...", "另存为...")),
        ("Save as PDF", "保存为 PDF(_P)", ("Save as PDF", "保存为 PDF")),
        ("打开(_O)", "開く(_O)", ("打开", "開く")),
        ("File(&F)", "文件(&F)", ("File", "文件")),
        ("开档 (&O)...", "Open (&O)...", ("开档...", "Open...")),
        ("foo(&X)", "foo(&X)", ("foo(&X)", "foo(&X)")),
        ("call foo(&s) now", "foo rufen", ("call foo(&s) now", "foo rufen")),
        ("call foo(&S) now", "foo rufen", ("call foo(&S) now", "foo rufen")),
        ("Dunder (__)", "双下划线(__)", ("Dunder (__)", "双下划线(__)")),
        ("Bitwise and", "按位与(&a)", ("Bitwise and", "按位与(&a)")),
        ("&File...", "ファイル(&F)...", ("File...", "ファイル...")),
        ("&File", "&Datei", ("File", "Datei")),
        ("E&xit", "B&eenden", ("Exit", "Beenden")),
        ("Save && E&xit", "Sichern && &Ende", ("Save & Exit", "Sichern & Ende")),
        ("R&D &Options", "F&E-&Optionen", ("R&D Options", "F&E-Optionen")),
        ("R&D", "F&E", ("R&D", "F&E")),
        ("Bro&wse...", "参照...", ("Browse...", "参照...")),
        ("by drag&drop", "mit drag&drop", ("by drag&drop", "mit drag&drop")),
        ("Drag&Drop mode", "Zieh&Ablege-Modus", ("Drag&Drop mode", "Zieh&Ablege-Modus")),
        ("Smith&Sons &Ltd", "Schmidt&Söhne &AG", ("Smith&Sons Ltd", "Schmidt&Söhne AG")),
        ("Set file_name", "Dateinamen setzen", ("Set file_name", "Dateinamen setzen")),
        ("AT&T and R&D", "AT&T und R&D", ("AT&T and R&D", "AT&T und R&D")),
        ("Use snake_case", "Nutze snake_case", ("Use snake_case", "Nutze snake_case")),
        ("Use max_size here", "max_size nutzen", ("Use max_size here", "max_size nutzen")),
        ("an _old_ word", "ein _altes_ Wort", ("an _old_ word", "ein _altes_ Wort")),
        ("Tom &amp; Jerry", "Tom &amp; Jerry", ("Tom & Jerry", "Tom & Jerry")),
        ("see ?a=x&b=y now", "siehe ?a=x&b=y", ("see ?a=x&b=y now", "siehe ?a=x&b=y")),
        ("call foo(&s) now", "foo(&s) rufen", ("call foo(&s) now", "foo(&s) rufen")),
        ("~Replace", "置換(~R)", ("Replace", "置換")),
        ("Cu~t", "~Ausschneiden", ("Cut", "Ausschneiden")),
        ("in ~user/files", "in ~user/files", ("in ~user/files", "in ~user/files")),
        ("about ~ten", "etwa 10", ("about ~ten", "etwa 10")),
        ("~File", "Da~tei", ("File", "Datei")),
        ("Monday~Friday", "월요일~금요일", ("Monday~Friday", "월요일~금요일")),
        ("Log in as ~root now", "Als ~root an", ("Log in as ~root now", "Als ~root an")),
        ("See x.org/~bob.", "Siehe x.org/~bob an.", ("See x.org/~bob.", "Siehe x.org/~bob an.")),
        ("Dr.~Smith", "Dr.~Schmidt", ("Dr.~Smith", "Dr.~Schmidt")),
        ("R&D~x", "R&D~y", ("R&D~x", "R&D~y")),
        ("Sa~ve ~As", "~Speichern", ("Sa~ve ~As", "~Speichern")),
        ("5 % of _files", "5 % der _Dateien", ("5 % of files", "5 % der Dateien")),
    ],
)  # fmt: skip
def test_keyboard_marks(source: str, target: str, expected: tuple[str, str]) -> None:
    assert cleaned(source, target) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Open the <filename>x.txt</filename> file.", "Open the x.txt file."),
        ('See <ulink url="a&gt;b">here</ulink> &amp; there', "See here & there"),
        ("<para>One.</para><para>Two.</para>", "One. Two."),
        ("one<br>two<br/>three", "one two three"),
        ("Use <keyseq><key>Ctrl</key><key>E</key></keyseq> or E.", "Use Ctrl E or E."),
        ("<cell>1</cell><cell>2</cell><b>c</b>", "1 2c"),
        ("<key>F10</key><key>%s</key>, <key>Ctrl</key><key>←</key>", "F10 %s, Ctrl ←"),
        ("<td>10</td><td>20</td>x (<p>y</p>)", "10 20 x (y)"),
        ("<para>一。</para><para>二</para>", "一。二"),
        ("<b>bold</b><b>ly</b> <i>un</i><i>do</i>", "boldly undo"),
        ("<b>bold</b>ly", "boldly"),
        ("open <file> or <user@host>", "open <file> or <user@host>"),
        ("a < b and c > d", "a < b and c > d"),
        ("<guimenu>File</guimenu><placeholder-1/>, x", "File, x"),
        ("one<!-- no -->, two", "one, two"),
        ("caf&#233; &lt;x&gt; &copy=1 &nonsense;", "café <x> &copy=1 &nonsense;"),
        ("%s of {0} in { $name }", "%s of {0} in { $name }"),
        ("See :ref:`Nodes <doc_nodes>` and :doc:`index`.", "See Nodes and index."),
        ("Read `the guide <https://x.org>`_, ``a*b*c``.", "Read the guide, a*b*c."),
        ("A **bold** word, 2 ** 3 ** 4", "A bold word, 2 ** 3 ** 4"),
        ("Call *this one* twice, 2 * 3 * 4, a*b*c", "Call this one twice, 2 * 3 * 4, a*b*c"),
        ("Price* and tax* (`x`)", "Price* and tax* (`x`)"),
        ("A [link](https://x.org/a) and [x](y)", "A link and [x](y)"),
        ("[b]Note:[/b] [code]x[/code] [method a.b]", "Note: x a.b"),
        ("A [Node2D] or an [HTTPClient]", "A Node2D or an HTTPClient"),
        ("An array int[MaxSize] of them", "An array int[MaxSize] of them"),
        ("[OK] [F1] [Enter] [UI2]", "[OK] [F1] [Enter] [UI2]"),
        ("Use |fileSave| :guilabel:`Save`, under |osx|_.", "Use Save, under."),
        ("|x| < 5, a|bc|d, ||ab|| |no end", "|x| < 5, a|bc|d, ||ab|| |no end"),
        ("an [optional] word, [param times]", "an [optional] word, times"),
        ("under a <_:link-1/>, or <_:media-1/> here", "under a, or here"),
        ("Use \\ to escape * or C:\\ [drive]", "Use \\ to escape * or C:\\ [drive]"),
        ("\\ :ref:`Signal<class_Signal>`\\ s of `Node`_", "Signals of Node"),
    ],
)
def test_markup(text: str, expected: str) -> None:
    assert cleaned(text, "x") == (expected, "x")


@pytest.mark.parametrize(
    "part",
    [
        "a",
        "<a ",
        "<!--",
        ":a",
        "`a",
        "[b]",
        "**a",
        "{a",
        "_a",
        "&a",
        "%1",
        "|a",
        "[Aa",
        " ",
        "\u3000",
        "字 ",
    ],
)
def test_hostile_text_takes_no_time(part: str) -> None:
    for first in ("", "{{", "_a", "字_a"):
        start = time.process_time()
        for length in (4_900, 200_000):
            sentence_pair(first + part * (length // len(part)), "x", "x:1")
        assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("translator-credits", "Erika Mustermann <erika@example.org>, 2020"),
        ("translator-credits", "Erika Mustermann"),
        ("NAME OF TRANSLATORS", "Erika Mustermann"),
        ("Your emails", "erika@example.org"),
        ("_: EMAIL OF TRANSLATORS\nYour emails", "erika@example.org"),
        ("Translated by", "Erika (at) example.org"),
        ("Translated by", "Erika Mustermann"),
        ("Translators:", "Erika Mustermann"),
        ("Author", "Erika von der Heide <erika@example.org>"),
        ("mate-translator-credits", "Erika Mustermann"),
        ("CREDIT_FOR_TRANSLATORS", "<para>Erika Mustermann</para>"),
    ],
)
def test_credits_are_left_out_with_their_names(source: str, target: str) -> None:
    item = sentence_pair(source, target, "x:1")
    assert item == Reject("translators' credits", "x:1", "")
    assert cleaned("Mail a@b.org", "Mail an a@b.org") == ("Mail a@b.org", "Mail an a@b.org")
    german = "Schreiben Sie uns jetzt gleich an hilfe@b.org"
    assert cleaned("Write to us now", german) == ("Write to us now", german)


@pytest.mark.parametrize(
    "source",
    ["app.title", "error_not_found", "MSG_OPEN", "a::b", "x.y-z", "Login.Title", "A.B.openFile"],
)
def test_symbolic_ids(source: str) -> None:
    item = sentence_pair(source, "Nicht gefunden", "x:1")
    assert isinstance(item, Reject)
    assert item.reason == "symbolic id"


@pytest.mark.parametrize(
    "source",
    [
        "README.md",
        "Node.js",
        "e-mail",
        "File/Folder",
        "www.x.org",
        "OK",
        "Dr.Who",
        "U.S.A",
        "Total:100",
        "Fig.2",
    ],
)
def test_words_that_are_no_ids(source: str) -> None:
    assert cleaned(source, "x") == (source, "x")


def test_a_catalogue_of_ids_has_no_sentences(tmp_path: Path) -> None:
    ids = ("app.title", "app.name", "error_404_text", "welcome")
    text = "".join(f'msgid "{x}"\nmsgstr "Ein Text"\n\n' for x in ids)
    (tmp_path / "de.po").write_text(text)
    assert reasons(found(tmp_path, format="gettext", path="de.po")) == {"symbolic id": 4}


def test_messages_with_selectors_are_left_out() -> None:
    icu = "{n, plural, one {# file} other {# files}}"
    item = sentence_pair(icu, icu, "x:1")
    assert isinstance(item, Reject)
    assert item.reason == "selectors"


@pytest.mark.parametrize("source", ["3.5", "%s: %d", "×", "<media src='a.png'/>", "→ {0}"])
def test_messages_without_words(source: str) -> None:
    assert sentence_pair(source, source, "x:1") == Reject("no words", "x:1", source)
    assert sentence_pair("_Q", "_B", "x:1") == Reject("no words", "x:1", "Q")  # a key
    assert sentence_pair("%1 %2", "%1 Min %2", "x:1") == Reject("no words", "x:1", "%1 %2")
    for damaged in (("What?", "???"), ("?????", "Was?"), ("<b></b>", "Was?")):
        assert isinstance(sentence_pair(*damaged, "x:1"), Pair)  # cleaning rejects them as bad rows


def test_reasons_of_catalogues_are_not_bad_rows(tmp_path: Path) -> None:
    (tmp_path / "de.po").write_text(
        'msgid "5 × 3"\nmsgstr "5 · 3"\n\n'
        'msgid "translator-credits"\nmsgstr "Erika <e@example.org>"\n\n'
        'msgid "_Print"\nmsgstr "_Drucken"\n'
    )
    items = found(tmp_path, format="gettext", path="de.po")
    assert [(x.source, x.target) for x in items if isinstance(x, Row)] == [("Print", "Drucken")]


def test_what_a_folder_leaves_out_is_said_when_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries = "".join(f'msgid "a text {i}"\nmsgstr "ein Text {i}"\n\n' for i in range(40))
    for name in ("de.po", "messages.po", "de_AT.po"):
        (tmp_path / name).write_text(entries)
    corpus = CorpusConfig(format="gettext", path=".", targets=["de"])
    config = DataConfig(root=str(tmp_path), corpora={"c": corpus}, dev_fraction=0.2)
    for _ in range(2):
        prepare_pairs(config, set(), tmp_path / "cache")
    (line,) = [record.message for record in caplog.records if "left out" in record.message]
    assert line == (
        "data.corpora.c: 1 files for de; 2 left out, which say no language, another one than their "
        "names, or another region: de_AT.po, messages.po"
    )
