"""The results notebook runs from the records beside it, and the README says what they say."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from conftest import tiny_settings

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()
PROSE = " ".join(README.split())
ONE_SEED = {"headline_narrow", "sizes", "frequency", "narrow"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The notebook's variables after its last cell, run on a copy of what it reads and writes."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(REPOSITORY / "notebooks", folder / "notebooks")
    empty = re.sub(r"(<!-- table: .* -->\n).*?(<!-- end -->)", r"\1\2", README, flags=re.S)
    (folder / "README.md").write_text(empty)
    notebook = nbformat.read(folder / "notebooks" / "results.ipynb", as_version=4)
    variables: dict[str, Any] = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "notebooks")
        patch.syspath_prepend(folder / "notebooks")
        for cell in notebook.cells:
            if cell.cell_type == "code":
                exec(cell.source, variables)
        for name in ("readme", "record"):
            del sys.modules[name]
    return variables


def test_the_tables_of_the_readme_are_those_of_the_notebook(results: dict[str, Any]) -> None:
    assert README.count("<!-- table: ") > 10
    assert (results["folder"] / "README.md").read_text() == README
    assert " nan " not in README


def test_a_table_takes_the_place_of_the_one_before(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, records = results["publish"], [results["baselines"]]
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- table: x -->\nold\n<!-- end -->\nb\n<!-- end -->\n")
    monkeypatch.setitem(publish.__globals__, "README", readme)
    frame = pd.DataFrame(
        {"STS": ["12.3", ""], "ms": ["", ""]}, index=pd.Index(["m", "n"], name="k")
    )
    for _ in range(2):
        publish("x", frame, records)
        lines = readme.read_text().splitlines()
        table = ["| k | STS | ms |", "| :-- | --: | --: |", "| m | 12.3 | |", "| n | | |"]
        assert lines[:7] == ["a", "<!-- table: x -->", "", *table]
        origin = f"<sub>Seed 0; 2026-11-22; {records[0]['hardware'].iloc[0]}.</sub>"
        assert lines[7:] == ["", origin, "", "<!-- end -->", "b", "<!-- end -->"]
    with pytest.raises(ValueError, match="no marks for the table nowhere"):
        publish("nowhere", frame, records)


def test_all_cells_of_the_tables_are_finished(results: dict[str, Any]) -> None:
    for name, table in results["tables"].items():
        assert table["finished"].notna().all()
        assert table["hardware"].notna().all()
        if name.startswith("baselines"):
            continue
        assert (table["status"] == "finished").all()
        overrides = table["overrides"].fillna("").str.replace(r"\bseed=\d+", "", regex=True)
        seeds = table["seed"].groupby([table["sweep"].fillna(""), overrides]).apply(sorted)
        assert all(found == ([0] if name in ONE_SEED else [0, 1, 2]) for found in seeds), name
    rows = {"equal": 12, "parts": 10, "similarities": 4, "sizes": 16, "narrow": 17, "by_start": 9}
    assert {name: len(results[name]) for name in rows} == rows


def test_the_readme_shows_the_commands_of_the_tables(results: dict[str, Any]) -> None:
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S))
    shown = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    for name, table in results["TABLES"].items():
        for command in table.commands:
            words = command.split()
            if words[0] != "mlkd.baselines":
                words.insert(0, "mlkd.train")
            # That the commands of the README are possible is test_readme's.
            whole = ["python", "-m", *words, "data.root=$CORPORA"]
            assert whole in shown or name == "baselines_short", command


def test_the_readme_draws_the_conclusions_of_its_tables(results: dict[str, Any]) -> None:
    tables, assistant = results["tables"], results["assistant"]

    for cells in results["students"].values():
        mean = cells[["parameters", "kept"]].mean()
        fewer = 100 - 100 * mean["parameters"] / assistant["parameters"]
        cost = f"{fewer:.0f} % fewer parameters cost {100 - mean['kept']:.1f} %"
        assert f"{cost} of the mean test STS" in PROSE
    claimed, least = (tables[name] for name in ("headline", "headline_least"))
    part = 100 * claimed["parameters"].mean() / assistant["parameters"]
    kept = claimed["kept"].mean()
    claim = f"a student of {part:.0f} % of the assistant's size keeps {kept:.1f} % of its STS, "
    claim += f"one of a good quarter of it {least['kept'].mean():.1f} %"
    assert claim in PROSE
    assert 25 < 100 * least["parameters"].mean() / assistant["parameters"] < 28
    chain, recipe = (results["baselines"].loc[n, "test_sts"] for n in ("contrastive", "mse recipe"))
    assert f"level: {chain - recipe:.2f} points apart" in PROSE
    chain, recipe = (results["short"].loc[n, "test_sts"] for n in ("contrastive", "mse recipe"))
    assert f"ahead by {recipe - chain:.1f}" in PROSE
    assert float(results["chosen"]) == 1e-4
    for bottleneck, line in results["powers"].iterrows():
        one, half = (line["test_sts", power] for power in (1.0, 0.5))
        assert f"from {one:.2f} to {half:.2f} with {bottleneck}" in PROSE


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(REPOSITORY / "notebooks")
    module = importlib.import_module("record")
    yield module
    del sys.modules["record"]


def test_an_unknown_table_is_refused(recorder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (["nothing"], "nothing: no such table"), (["a=b"], "no table is named"):
        assert recorder.main(words) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}; allowed: english_german, ")


@pytest.mark.slow
def test_a_table_is_recorded_from_its_runs(
    recorder: Any,
    encoder_folder: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "RESULTS", tmp_path)
    tiny = recorder.Table("English, German", ("-m stage=bottleneck seed=0,1",), ("references",))
    monkeypatch.setitem(recorder.TABLES, "tiny", tiny)
    settings = tiny_settings(encoder_folder, corpus, tmp_path / "outputs")
    assert recorder.main(["tiny", "assistant.seed=0", *settings]) == 0
    cells, references = (pd.read_csv(tmp_path / f"tiny{end}.csv") for end in ("", "_references"))
    assert list(cells["seed"]) == [0, 1]
    assert list(cells["overrides"]) == ["seed=0", "seed=1"]
    assert (cells["status"] == "finished").all()
    assert list(references["model"]) == ["teacher", "assistant"]
    assert str(tmp_path) not in (tmp_path / "tiny.csv").read_text()
