"""Evaluations of shorter vectors and of queries with other documents, in a report."""

from __future__ import annotations

import json
import re
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
    assert "## Queries and documents: mse-0123" in text
    assert "Shorter vectors: mse-0123</h2>" in page
    (row,) = re.findall(r"<tr><td>student</td><td>8</td>(.*?)</tr>", page)
    assert re.findall(r'<td class="number">(.*?)</td>', row) == [
        str(content["vectors"]["student"]["8"]["bytes"]), f"{score:.2f}",
    ]  # fmt: skip
    pairs = content["documents"][next(iter(content["documents"]))]["both"]["sets"]["sts"]["pairs"]
    assert len(re.findall(r"<td>dev</td><td>sts</td>", page)) == len(pairs)


def test_the_latest_evaluation_counts_and_others_students_do_not(
    cell: ReportCell, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written = tmp_path / "out/evaluation-mse-0123-aa.json"
    content: dict[str, Any] = json.loads(written.read_text())
    content["vectors"]["student"]["8"]["bytes"] = 4321
    later = content | {"finished": "2999-01-01T00:00:00+00:00"}
    written.with_name("evaluation-mse-0123-bb.json").write_text(json.dumps(later))
    content["vectors"]["student"]["8"]["bytes"] = 9876
    other = content | {"model": {"fingerprint": "another"}, "finished": "2999-02-01"}
    written.with_name("evaluation-mse-0123-cc.json").write_text(json.dumps(other))
    written.with_name("evaluation-mse-0123-dd.json").write_text("[]")
    text, _ = texts_of(cell, tmp_path / "report")
    assert "| student | 8 | 4321 |" in text and "9876" not in text
    assert text.count("## Shorter vectors") == 1
    assert "evaluation-mse-0123-dd.json: not an evaluation of this version" in caplog.text


def test_a_report_without_evaluations_has_no_such_tables(cell: ReportCell, tmp_path: Path) -> None:
    (tmp_path / "out/evaluation-mse-0123-aa.json").unlink()
    text, page = texts_of(cell, tmp_path / "report")
    assert "Shorter vectors" not in text + page and "Queries and documents" not in text + page
