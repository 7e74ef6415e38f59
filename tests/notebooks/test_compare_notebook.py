"""The comparison notebook runs from top to bottom on real records."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "compare_sweep.ipynb"


@pytest.mark.slow
@pytest.mark.enable_socket  # the kernel listens on local ports
def test_it_runs(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parent.parent))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source = f"sources = [{str(sweep)!r}]"
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = [
        "".join(
            output.get("text", "") or output.get("data", {}).get("text/plain", "")
            for output in cell.outputs
        )
        for cell in code
    ]
    assert texts[1].startswith("7 cells, 0 scored on other")
    assert "OutOfMemoryError: no memory left" in texts[3]
    pictures = [c for c in code for o in c.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 2
    tables = [o["data"].get("text/html", "") for c in code for o in c.outputs if "data" in o]
    assert any("recurrence" in table and "background-color" in table for table in tables)
    assert Path(texts[-1].splitlines()[0], "model.safetensors").is_file()
