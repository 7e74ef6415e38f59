"""The results notebook runs from the tables beside it, and the README quotes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The notebook's variables after its last cell."""
    path = REPOSITORY / "notebooks" / "results.ipynb"
    monkeypatch.chdir(path.parent)
    notebook = nbformat.read(path, as_version=4)
    variables: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, variables)
    return variables


def test_all_cells_of_the_tables_are_finished(results: dict[str, Any]) -> None:
    assert set(results["tables"]) == {"headline", "initialisation"}
    for table in results["tables"].values():
        assert (table["status"] == "finished").all()
        assert table["seed"].nunique() == 3
        assert table["hardware"].notna().all()


def test_the_readme_quotes_the_headline(results: dict[str, Any]) -> None:
    means = results["over_seeds"](results["headline"], "stages.contrastive.lr")
    assert float(results["chosen"]) == 1e-4
    for rate, line in means.iterrows():
        quoted = [
            f"{line[name, 'mean']:.2f} ± {line[name, 'sd']:.2f}"
            for name in ("dev_sts", "test_sts", "kept", "test_bitext")
        ]
        assert " | ".join(quoted) in README, rate


def test_the_readme_quotes_the_initialisation(results: dict[str, Any]) -> None:
    means = results["over_seeds"](results["init"], "source", results["objective"])
    assert len(means) == 6
    for _, line in means.iterrows():
        assert f"{line['test_sts', 'mean']:.1f} ± {line['test_sts', 'sd']:.1f}" in README
    for value in results["effects"]:
        assert f"{value:+.1f}" in README
