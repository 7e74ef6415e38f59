"""Evaluations of shorter vectors and of queries with other documents, in a report."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mlkd
from mlkd.reporting.build import write_report
from mlkd.reporting.collect import ReportCell
from mlkd.storage.files import encoder_fingerprint

SETS = {"sts": {"kind": "sts", "split": "dev", "format": "demo", "languages": ["en", "de"]}}


@pytest.fixture
def cell(encoder_folder: Path, tmp_path: Path) -> ReportCell:
    """A run whose student is a tiny encoder, and its evaluation beside it."""
    run = tmp_path / "out/runs/mse-0123"
    student = run / "student"
    student.parent.mkdir(parents=True)
    student.symlink_to(encoder_folder)
    outputs = {"student": {"content": encoder_fingerprint(student)}}
    judged = mlkd.evaluate(
        student,
        output=tmp_path / "out/evaluation-mse-0123-aa.json",
        vectors=[8, "int8"],
        documents=[str(encoder_folder)],
        eval={"sets": SETS, "max_pairs": 10, "bootstrap": 0},
    )
    record = {"outputs": outputs, "link": "mse", "metrics": judged.content}
    return ReportCell("mse-0123", "finished", {"seed": 3}, record, (run,))


def texts_of(cell: ReportCell, folder: Path) -> tuple[str, str]:
    page = write_report([cell], folder, "one")
    return (folder / "report.md").read_text(), page.read_text(encoding="utf-8")


def test_a_report_has_the_tables_of_an_evaluation(cell: ReportCell, tmp_path: Path) -> None:
    content = cell.record["metrics"]
    text, page = texts_of(cell, tmp_path / "report")
    score = content["vectors"]["student"]["8"]["scores"]["mean"]["dev"]["sts"]
    line = f"| student | 8 | {content['vectors']['student']['8']['bytes']} | {score:.2f} |"
    assert "## Shorter vectors: mse-0123" in text and line in text
    assert "| :-- | :-- | --: | --: |" in text  # words to the left, numbers to the right
    assert "## Queries and documents: mse-0123" in text
    assert "Shorter vectors: mse-0123</h2>" in page
    (row,) = re.findall(r"<tr><td>student</td><td>8</td>(.*?)</tr>", page)
    assert re.findall(r'<td class="number">(.*?)</td>', row) == [
        str(content["vectors"]["student"]["8"]["bytes"]), f"{score:.2f}",
    ]  # fmt: skip
    pairs = content["documents"][next(iter(content["documents"]))]["both"]["sets"]["sts"]["pairs"]
    assert len(re.findall(r"<td>dev</td><td>sts</td>", page)) == len(pairs)


def test_the_latest_evaluation_of_a_kind_counts_and_others_students_do_not(
    cell: ReportCell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "out/evaluation-mse-0123-aa.json"
    content: dict[str, Any] = json.loads(written.read_text())
    content["vectors"]["student"]["8"]["bytes"] = 4321
    del content["documents"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    later = content | {"finished": "2998-01-01T00:00:00+00:00"}
    (tmp_path / "outputs/evaluation-mse-0123-bb.json").write_text(json.dumps(later))
    later = content | {"finished": "2999-01-01T00:00:00+00:00"}
    del later["vectors"]
    written.with_name("evaluation-mse-0123-cc.json").write_text(json.dumps(later))
    content["vectors"]["student"]["8"]["bytes"] = 9876
    other = content | {"model": {"fingerprint": "another"}, "finished": "2999-02-01"}
    written.with_name("evaluation-mse-0123-dd.json").write_text(json.dumps(other))
    text, _ = texts_of(cell, tmp_path / "report")
    assert "| student | 8 | 4321 |" in text and "9876" not in text
    assert text.count("## Shorter vectors") == text.count("## Queries and documents") == 1


@pytest.mark.parametrize(
    "odd",
    [
        "[]", "{", "[" * 100_000, b"\xff", {"vectors": []}, {"documents": "x"},
        {"vectors": {"teacher": None}}, {"scores": {"sets": {"sts": {}}}}, {"finished": None},
    ],
    ids=range(9),
)  # fmt: skip
def test_an_odd_evaluation_is_named_and_the_rest_is_shown(
    cell: ReportCell, odd: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = tmp_path / "out/evaluation-mse-0123-aa.json"
    file = written.with_name("evaluation-mse-0123-ee.json")
    if isinstance(odd, dict):
        odd = json.dumps(json.loads(written.read_text()) | {"finished": "2999-01-01"} | odd)
    file.write_bytes(odd if isinstance(odd, bytes) else odd.encode())
    text, _ = texts_of(cell, tmp_path / "report")
    assert text.count("## Shorter vectors") == 1
    assert f"{file}: not shown, no evaluation of this version (" in caplog.text
    assert len(caplog.text) < 1000


def test_a_record_without_outputs_has_no_evaluation(cell: ReportCell, tmp_path: Path) -> None:
    for outputs in (None, {}, {"student": None}):
        odd = replace(cell, record=cell.record | {"outputs": outputs})
        text, _ = texts_of(odd, tmp_path / "report")
        assert "## Scores" in text and "## Shorter vectors" not in text


def test_a_note_says_on_which_sets_it_was(cell: ReportCell, tmp_path: Path) -> None:
    day = cell.record["metrics"]["finished"][:10]
    text, page = texts_of(cell, tmp_path / "report")
    same = f"Of {day}, on the sets of the scores above: sts."
    assert text.count(same) == page.count(same) == 2
    written = tmp_path / "out/evaluation-mse-0123-aa.json"
    content = json.loads(written.read_text()) | {"not_kept_out": ["sts"]}
    content["scores"]["sets"]["sts"]["content"]["en-de"] = "another"
    written.write_text(json.dumps(content))
    text, _ = texts_of(cell, tmp_path / "report")
    note = "on other sets than those of the scores above: sts. Not kept out of the training pairs"
    assert text.count(f"{note}: sts.") == 2


def test_seeds_are_told_apart(cell: ReportCell, tmp_path: Path) -> None:
    run = tmp_path / "out/runs/mse-4567"
    run.mkdir()
    written = tmp_path / "out/evaluation-mse-0123-aa.json"
    written.with_name("evaluation-mse-4567-aa.json").write_text(written.read_text())
    other = replace(cell, id="mse-4567", config={"seed": 4}, links=(run,))
    write_report([cell, other], tmp_path / "report", "two")
    heads = re.findall(
        r"^## Shorter vectors: .*, (seed \d)$", (tmp_path / "report/report.md").read_text(), re.M
    )
    assert heads == ["seed 3", "seed 4"]


def test_a_report_without_evaluations_has_no_such_tables(cell: ReportCell, tmp_path: Path) -> None:
    (tmp_path / "out/evaluation-mse-0123-aa.json").unlink()
    text, page = texts_of(cell, tmp_path / "report")
    assert "Shorter vectors" not in text + page and "Queries and documents" not in text + page
