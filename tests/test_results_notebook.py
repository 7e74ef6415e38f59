"""The results notebook runs from the records beside it, and the README says what they say."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import signal
import subprocess
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
ONE_SEED = {"headline_narrow", "sizes", "narrow"}


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
    publish = results["publish"]
    cell = {"finished": "2026-11-22T13:36:07+00:00", "hardware": "a processor"}
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- table: x -->\nold\n<!-- end -->\nb\n<!-- end -->\n")
    monkeypatch.setitem(publish.__globals__, "README", readme)
    frame = pd.DataFrame(
        {"STS": ["12.3", ""], "ms": ["", ""]}, index=pd.Index(["m", "n"], name="k")
    )
    seeds = {"Seed 0; 2026-11-22": [0], "Seeds 0, 2; 2026-11-22": [2, 0]}
    for made, numbers in seeds.items():
        records = [pd.DataFrame([cell | {"seed": seed}]) for seed in numbers]
        publish("x", frame, records)
        lines = readme.read_text().splitlines()
        table = ["| k | STS | ms |", "| :-- | --: | --: |", "| m | 12.3 | |", "| n | | |"]
        assert lines[:7] == ["a", "<!-- table: x -->", "", *table]
        assert lines[7:] == [
            "",
            f"<sub>{made}; a processor.</sub>",
            "",
            "<!-- end -->",
            "b",
            "<!-- end -->",
        ]
    with pytest.raises(ValueError, match="no marks for the table nowhere"):
        publish("nowhere", frame, records)


def test_all_cells_of_the_tables_are_finished(results: dict[str, Any]) -> None:
    for name, table in results["tables"].items():
        assert table["finished"].notna().all()
        assert table["hardware"].notna().all()
        if name == "baselines":
            assert set(table["seed"].groupby(table["model"]).apply(tuple)) == {(0, 1, 2)}
            continue
        assert (table["status"] == "finished").all()
        overrides = table["overrides"].fillna("").str.replace(r"\bseed=\d+", "", regex=True)
        seeds = table["seed"].groupby([table["sweep"].fillna(""), overrides]).apply(sorted)
        assert all(found == ([0] if name in ONE_SEED else [0, 1, 2]) for found in seeds), name
    rows = {"equal": 12, "parts": 10, "similarities": 4, "sizes": 16, "narrow": 17, "by_start": 9}
    rows |= {"rivals": 11, "powers": 3}
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
            assert whole in shown, (name, command)


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


def test_the_readme_draws_the_conclusions_of_its_rivals(results: dict[str, Any]) -> None:
    means = results["means"]

    def gain(measure: str, model: str, less: str = "contrastive") -> float:
        return float(means.loc[model, measure] - means.loc[less, measure])

    apart = abs(gain("dev_sts", "mse recipe"))
    assert f"Chain and recipe are level on dev, {apart:.1f} points apart." in PROSE
    assert f"the recipe is {gain('test_sts', 'mse recipe'):.1f} points of STS ahead" in PROSE
    assert f"finds {-gain('test_bitext', 'mse recipe'):.1f} points more translations" in PROSE
    last = [gain(measure, "contrastive", "recurrent") for measure in ("test_bitext", "test_sts")]
    assert f"finds {last[0]:.1f} points more translations than there were after" in PROSE
    assert f"moves STS by {last[1]:.1f}." in PROSE
    kept = f"{means.loc['start', 'kept']:.0f} % of the assistant's STS before any training"
    assert kept in PROSE
    lost = [
        -gain("test_sts", "assistant int8", "assistant"),
        -gain("test_sts", "student int8"),
    ]
    assert "costs the assistant {:.1f} points and the student {:.1f}".format(*lost) in PROSE
    speed = means["sentences_per_s"]
    faster = speed["student int8"] / speed["assistant int8"]
    assert f"encodes {faster:.1f} times as many sentences per second" in PROSE
    assert f"where {means.loc['assistant int8', 'mib']:.0f} MiB will do" in PROSE


def test_the_readme_draws_the_conclusions_of_the_powers(results: dict[str, Any]) -> None:
    frequency = results["tables"]["frequency"]
    means = frequency.groupby("frequency_power")[["test_sts", "test_bitext"]].mean()
    one, half = means.loc[1.0], means.loc[0.5]
    assert f"takes test STS from {one['test_sts']:.2f} to {half['test_sts']:.2f}," in PROSE
    fewer = one["test_bitext"] - half["test_bitext"]
    assert f"finds {fewer:.1f} points fewer translations" in PROSE
    assert float(results["chosen"]) == 0.5


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(REPOSITORY / "notebooks")
    module = importlib.import_module("record")
    yield module
    del sys.modules["record"]


def test_an_unknown_table_is_refused(recorder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (["nothing"], "nothing: no such table"), (["a=b"], "no table is named"):
        assert recorder.main(words) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}; allowed: headline, ")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_stops_a_recording_lets_its_command_save(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    (tmp_path / "training.py").write_text(
        "import signal, sys, time\n"
        "def save(number, frame):\n"
        "    time.sleep(1)\n"
        "    print('has saved', flush=True)\n"
        "    sys.exit(128 + number)\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(number, save)\n"
        "print('trains', flush=True)\n"
        "time.sleep(60)\n"
    )
    code = (
        "import sys, record\n"
        "record.record = lambda name, settings: record._run(['training'])\n"
        "sys.exit(record.main(['headline']))\n"
    )
    path = os.pathsep.join(map(str, (REPOSITORY / "notebooks", tmp_path)))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert "trains\n" in iter(process.stdout.readline, "")
    # Ctrl-C goes to all processes of a terminal, a cluster's SIGTERM to the first one.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    output, error = process.communicate(timeout=30)
    assert process.returncode == status
    assert "has saved" in output
    assert "Traceback" not in error


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
