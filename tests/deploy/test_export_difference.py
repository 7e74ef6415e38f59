"""Exported sparse differences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from students import TEXTS, as_run, export, small

import mlkd
from mlkd.config.commands import ExportConfig
from mlkd.deploy.exported import FP32, open_onnx
from mlkd.encoders.difference import (
    FILE,
    Difference,
    Differences,
    Entries,
    save_difference,
    weights_fingerprint,
    weights_of,
)
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.encoders.head import load_head, save_head
from mlkd.metrics.similarity import unit
from mlkd.storage.files import encoder_fingerprint


@pytest.fixture
def runs(encoder_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Folders of two finished runs: a base, and a task that changed a tenth of its entries."""
    model = small(encoder_folder, 4, layers=2, recurrence=2)
    save_folder(model, tmp_path / "base")
    base = as_run(tmp_path / "base", tmp_path / "runs/layers-0", id="layers-0", link="layers")
    generator, changed = torch.Generator().manual_seed(3), {}
    for name, parameter in weights_of(model).items():
        index = (torch.rand(parameter.numel(), generator=generator) < 0.1).nonzero()[:, 0]
        if len(index):
            old = parameter.detach().view(-1)[index]
            changed[name] = Entries(index, old + 0.3 * torch.randn(len(old), generator=generator))
    found = Difference(weights_fingerprint(weights_of(model).items()), 0.1, changed)
    Differences(model).apply(found)
    save_folder(model, tmp_path / "task")
    content = {"content": encoder_fingerprint(tmp_path / "task"), "files": {}}
    task = tmp_path / "runs/sparse-0"
    (task / "diff").mkdir(parents=True)
    save_difference(found, task / "diff" / FILE)
    (task / "head").mkdir()
    save_head(torch.ones(2, 16), torch.zeros(2), ["a", "b"], task / "head")
    diff, head = (
        {"content": encoder_fingerprint(task / name), "files": {}} for name in ("diff", "head")
    )
    as_run(
        tmp_path / "task", task, id="sparse-0", link="sparse",
        outputs={"student": content, "diff": diff, "head": head},
        inputs={"start": {"run": "layers-0", "content": encoder_fingerprint(tmp_path / "base")}},
    )  # fmt: skip
    return base, task


def test_base_and_difference_are_the_student(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, task = runs
    out = export(task, tmp_path / "out", "sparse") / "sparse"
    size = (out / FILE).stat().st_size
    assert f"{size / 2**20:.2f}" in capsys.readouterr().out
    report = json.loads((out / "export.json").read_text())
    assert report["base"] == "layers-0"
    assert report["parts"][FILE]["mib"] == size / 2**20
    assert report["parts"][FILE]["max_difference"] == 0.0
    assert load_head(out, 16).labels == ("a", "b")
    shipped = export(base, tmp_path / "base-out", "compact") / "compact"
    wanted = load_folder(task / "student").encode(TEXTS)
    for folder in (base, shipped):
        assert np.array_equal(mlkd.load(folder, diff=out).encode(TEXTS), wanted)
        assert not np.allclose(mlkd.load(folder).encode(TEXTS), wanted, atol=1e-3)
    card = (out / "README.md").read_text()
    assert "the student of the run\n`layers-0`" in card
    assert "| `diff.safetensors` |" in card


def test_the_graph_of_the_run_is_that_of_base_and_difference(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    base, task = runs
    out = export(task, tmp_path / "out", "portable", max_loss=100.0) / "portable"
    wanted = mlkd.load(base, diff=task)
    save_folder(wanted, tmp_path / "sum")
    assert encoder_fingerprint(tmp_path / "sum") == encoder_fingerprint(task / "student")
    found = unit(open_onnx(out, file=FP32)(TEXTS))
    assert np.abs(found - unit(wanted.encode(TEXTS))).max() < 1e-4


def test_what_has_no_difference_is_refused(
    runs: tuple[Path, Path], tmp_path: Path, command: Command
) -> None:
    base, task = runs
    out = [f"output={tmp_path / 'out'}", "format=[sparse]"]
    for run, message in (
        (base, "layers-0 is no run that made a sparse difference"),
        (task / "student", None),
        (tmp_path / "base", "base is no run that made a sparse difference"),
    ):
        if message is None:
            shutil.move(base, base.with_name("elsewhere"))
            message = "layers-0/student: what the run started from"
        done = command("mlkd.export", f"run={run}", *out)
        assert done.returncode == 2
        assert message in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
    with pytest.raises(ValueError, match="leave trim out"):
        ExportConfig.model_validate({"run": str(task), "format": ["sparse"], "trim": {}})
