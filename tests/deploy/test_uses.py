"""What the vectors of a run, and of what was exported of it, are good for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from students import export

from mlkd.config.commands import EvaluateConfig, ExportConfig
from mlkd.deploy.exported import FP32, INT8, open_onnx
from mlkd.encoders.folder import load_folder
from mlkd.metrics.scoring import score
from mlkd.metrics.sets import load_sets
from mlkd.metrics.shorter import score_kinds
from mlkd.output.errors import UserError

KINDS = ["8", "int8", "binary", "8-int8"]


@pytest.fixture(scope="module")
def run(finished_chain: Path) -> Path:
    (found,) = finished_chain.glob("runs/contrastive-*")
    return found


@pytest.fixture(scope="module")
def settings(run: Path) -> dict[str, Any]:
    """The sets that the run was scored on."""
    found: dict[str, Any] = json.loads((run / "run.json").read_text())["config"]["eval"]
    return found


def evaluate(model: Path, settings: dict[str, Any], output: Path, **more: Any) -> dict[str, Any]:
    from mlkd.evaluate import main

    values = {"model": str(model), "eval": settings, "output": str(output), **more}
    main(EvaluateConfig.model_validate(values))
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def test_shorter_vectors_of_a_run(
    run: Path, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(run, settings, tmp_path / "e.json", vectors=[8, *KINDS[1:]])
    assert list(found["vectors"]) == ["teacher", "assistant", "student"]
    for kinds in found["vectors"].values():
        assert list(kinds) == ["float32", *KINDS]
        assert [entry["bytes"] for entry in kinds.values()] == [64, 32, 16, 2, 8]
    whole = found["vectors"]["student"]["float32"]["scores"]["mean"]
    assert whole == found["scores"]["mean"]
    record = json.loads((run / "run.json").read_text())
    theirs = record["references"]["assistant"]["scores"]["mean"]
    assert found["vectors"]["assistant"]["float32"]["scores"]["mean"] == theirs
    # The first numbers of the student's own vectors.
    student, sets = load_folder(run / "student"), load_sets(EvaluateConfig.model_validate(
        {"model": "x", "eval": settings}).eval)  # fmt: skip
    half = score(lambda texts: student.encode(list(texts), truncate_dim=8), sets, bootstrap=0)
    expected = half["mean"]["dev"]["sts"]
    short = found["vectors"]["student"]["8"]["scores"]["mean"]["dev"]["sts"]
    assert short == pytest.approx(expected, abs=0.5)
    printed = capsys.readouterr().out
    assert f"│ {short:.2f}" in printed or f" {short:.2f} " in printed


def test_of_an_exported_folder_too(run: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    """What an export measured and its card says is what evaluating the folder finds."""
    out = export(run, tmp_path / "out", "portable", "compact", max_loss=100.0, vectors=KINDS)
    report = json.loads((out / "portable/export.json").read_text())["parts"]
    text = (out / "portable/README.md").read_text().partition("## Shorter vectors\n")[2]
    for file in (FP32, INT8):
        found = evaluate(
            out / "portable" / file, settings, tmp_path / f"{Path(file).stem}.json", vectors=KINDS
        )
        assert list(found["vectors"]) == ["teacher", "student"]
        kinds = found["vectors"]["student"]
        for kind, entry in kinds.items():
            mean = entry["scores"]["mean"]
            assert mean == report[file]["vectors"][kind]["scores"]["mean"]
            line = f"| `{file}` | {kind} | {entry['bytes']} | {mean['dev']['sts']:.2f} |"
            assert line in text
    sets = load_sets(EvaluateConfig.model_validate({"model": "x", "eval": settings}).eval)
    again = score_kinds(open_onnx(out / "portable"), sets, ["binary"])
    assert again["binary"]["scores"]["mean"] == report[INT8]["vectors"]["binary"]["scores"]["mean"]
    compact = (out / "compact/README.md").read_text()
    assert "| `model.safetensors` | 8-int8 | 8 | " in compact


def test_a_card_says_nothing_of_what_was_not_measured(run: Path, tmp_path: Path) -> None:
    out = export(run, tmp_path / "out", "compact", max_loss=100.0)
    assert "Shorter vectors" not in (out / "compact/README.md").read_text()
    report = json.loads((out / "compact/export.json").read_text())["parts"]["model.safetensors"]
    assert "vectors" not in report


def test_more_numbers_than_the_student_has_is_one_line(
    run: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="vectors: 17: vectors of the student have 16 numbers"):
        export(run, tmp_path / "out", "compact", vectors=[17])
    with pytest.raises(UserError, match="vectors: 32-int8: vectors of the teacher have 16 numbers"):
        evaluate(run, settings, tmp_path / "e.json", vectors=["32-int8"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="vectors: the format gguf is not scored"):
        ExportConfig.model_validate({"run": str(run), "format": ["gguf"], "vectors": [8]})
