"""Qt Linguist's files: what is finished, and plural forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora import found, reasons, refused

from mlkd.data.rows import Row


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
        ("tr", ["dosya"], "dosya"),
        ("zh_Hans", ["文件"], "文件"),
        ("no", ["fil", "filer"], "filer"),
        ("fil", ["file", "file na", "mga file"], "mga file"),
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


@pytest.mark.parametrize("name", ["log_in.ts", "it/a.ts", "tr/app_pt-br.ts", "app.id.ts"])
def test_what_a_file_of_qt_says_comes_before_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(
        '<TS version="2.1" sourcelanguage="en" language="pt_BR"><context><name>Main</name>'
        f"{message('Rain', 'Chuva')}</context></TS>"
    )
    items = found(tmp_path, "pt-BR", format="qt", path=".", targets=["pt-BR"])
    assert [(item.source, item.target) for item in items if isinstance(item, Row)] == [
        ("Rain", "Chuva")
    ]
