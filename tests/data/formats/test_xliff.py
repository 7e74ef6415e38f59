"""Translation jobs: what is finished, and its segments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora import found, pairs, reasons, refused

from mlkd.data.formats.xml import units
from mlkd.data.rows import Row

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
        segment("A1", "a1", "translated"), segment("B1", "b1", "reviewed"),
        segment("C1", "c1", "final"),
        "<ignorable><source> </source><target> </target></ignorable>",
        segment("D1", "d1", "initial"), segment("Radio", "Radio"), segment("E1", "e1"),
        segment("F1", None), segment("Taxi", "Taxi", "final"),
        segment('<pc id="1">b<mrk id="m">ol</mrk>d</pc> x<ph id="2"/>y <sm id="n"/>t<em/>', "G1",
                "final"),
    ]  # fmt: skip
    (tmp_path / "x.xlf").write_text(
        '<xliff version="2.1" srcLang="en-US" trgLang="de-DE" xmlns="urn:oasis:names:tc:xliff:'
        f'document:2.0"><file id="f"><unit id="1">{"".join(segments)}</unit>'
        f'<group id="g" translate="no"><unit id="2">{segment("H1", "h1", "final")}</unit>'
        f'<unit id="3" translate="yes">{segment("I1", "i1", "final")}</unit></group></file></xliff>'
    )
    items = found(tmp_path, format="xliff", path="x.xlf")
    assert [(item.source, item.target) for item in items if isinstance(item, Row)] == [
        ("A1", "a1"), ("B1", "b1"), ("C1", "c1"), ("E1", "e1"), ("Taxi", "Taxi"),
        ("bold x y t", "G1"), ("I1", "i1"),
    ]  # fmt: skip
    assert reasons(items) == {"unfinished": 1, "untranslated": 2, "not translatable": 1}


def test_a_large_job_leaves_nothing_in_memory(tmp_path: Path) -> None:
    unit = f"<group>{trans('Rain', 'Regen', 'final')}{trans('Snow', 'Schnee')}</group>"
    (tmp_path / "x.xlf").write_text(xliff(*[unit] * 100))
    number = 0
    for element, _ in units(tmp_path / "x.xlf", {"trans-unit"}, {"group", "file"}):
        number += 1
        for item in (element, *element.iterancestors()):
            before = list(item.itersiblings(preceding=True))
            assert len(before) <= 1
            assert not any(len(other) for other in before)
    assert number == 200


def test_what_a_job_says_comes_before_its_name(tmp_path: Path) -> None:
    """Names as sign-in and id are no languages where the file says one."""
    names = ["sign-in.xlf", "id.xlf", "intro.en.xlf", "it/handbook.xlf", "hr/x.xlf", "x.de.xlf"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(xliff(trans("Rain", f"Regen {name}", "final")))
    wide = xliff(trans("Rain", "Regen w", "final")).encode("utf-16")
    (tmp_path / "is.xlf").write_bytes(wide)
    items = found(tmp_path, format="xliff", path=".")
    translations = {item.target for item in items if isinstance(item, Row)}
    assert translations == {f"Regen {name}" for name in names} | {"Regen w"}
