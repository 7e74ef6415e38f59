from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from pages import REPOSITORY, blocks
from students import export, small

from mlkd.encoders.folder import save_folder

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.fixture
def student(encoder_folder: Path, tmp_path: Path) -> Path:
    save_folder(small(encoder_folder, 4, layers=2, recurrence=2), tmp_path / "student")
    return tmp_path / "student"


def test_the_search_notebook_runs_and_shows_hits(
    student: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLKD_STUDENT", str(student))
    path = REPOSITORY / "notebooks/cross_lingual_search.ipynb"
    monkeypatch.chdir(path.parent)
    notebook = nbformat.read(path, as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    exec("\n".join(code), {})  # plain Python: no kernel has to start
    text = capsys.readouterr().out
    found = re.search(r"^(\d+) sentences in de, en, es, fr, tr$", text, re.M)
    assert found and int(found[1]) >= 300
    hits = re.findall(r"^  (-?\d\.\d{3})  (de|en|es|fr|tr)  \S", text, re.M)
    assert len(hits) == 20
    assert re.search(r"^\d+\.\d % of \d+ queries$", text, re.M)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_search_of_the_pages_runs(student: Path, tmp_path: Path) -> None:
    out = export(student, tmp_path / "out", "portable", max_loss=100.0) / "portable"
    (snippet,) = (block for block in blocks("python") if block.startswith("from encode "))
    assert sum(bool(line) for line in snippet.splitlines()) == 5
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_python_of_the_readme_runs(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = (block for block in blocks("python") if "student = mlkd.load(" in block)
    given, replaced = re.subn(r'"outputs/runs/[^"]*"', repr(str(student)), snippet)
    assert replaced == 1
    exec(given, {})
    assert capsys.readouterr().out.startswith("tensor([[1.")
