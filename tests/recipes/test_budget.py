from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command, stored_tokens
from students import TEXTS

from mlkd.config.student import InitConfig
from mlkd.data.store import PairStore
from mlkd.deploy.onnx_encoder import write_onnx
from mlkd.encoders.folder import load_folder
from mlkd.output.errors import UserError
from mlkd.recipes import budget
from mlkd.recipes.budget import deepest, graph_bytes, sizes, within_budget
from mlkd.recipes.front import run_front
from mlkd.recipes.run import run_chain
from mlkd.student.shapes import Starts, WordTable, neurons, tables

INIT = InitConfig(source="teacher", layers="ends", embedding="svd")


def starts_of(folder: Path) -> Starts:
    import numpy as np

    source = load_folder(folder)
    tokens = stored_tokens(source, TEXTS)
    return Starts(source, tokens, np.arange(len(TEXTS)), INIT, 16, seed=0)


def test_the_tables_of_the_usual_width() -> None:
    narrow = [WordTable(bottleneck=64), WordTable(bottleneck=128)]
    assert tables(384) == [*narrow, *(WordTable(codes=n) for n in (32, 48, 64, 96))]
    assert neurons(1536) == [384, 768, 1152, 1536]


@pytest.mark.parametrize("kind", ["fp32", "int8", "q4"])
def test_bytes_are_those_of_the_file(encoder_folder: Path, tmp_path: Path, kind) -> None:
    starts = starts_of(encoder_folder)
    counted = sizes(starts, kind)
    for (table, width), (first, further) in list(counted.items())[::3]:
        model = starts.student(table, starts.depth, width)
        write_onnx(model, tmp_path / "model.onnx", kind)
        written = (tmp_path / "model.onnx").stat().st_size
        assert graph_bytes(model, kind) == written
        # Names of nodes have more digits in deeper graphs.
        assert written == pytest.approx(first + (starts.depth - 1) * further, abs=1000)


def test_the_deepest_shapes_that_fit() -> None:
    a, b = WordTable(bottleneck=1), WordTable(codes=2)
    counted = {(a, 8): (100, 10), (a, 16): (110, 20), (b, 8): (50, 10), (b, 16): (60, 20)}
    shapes, least = deepest(counted, 3, 109)
    assert shapes == [(a, 1, 8), (b, 3, 16)]  # with 8 neurons it could have no more layers
    assert least == 50
    assert deepest(counted, 9, 109)[0] == [(a, 1, 8), (b, 6, 8), (b, 3, 16)]
    assert deepest(counted, 9, 49) == ([], 50)


def test_a_larger_shape_starts_nearer(encoder_folder: Path) -> None:
    starts = starts_of(encoder_folder)
    whole = starts.cosine(starts.student(WordTable(codes=4), starts.depth, starts.neurons))
    small = starts.cosine(starts.student(WordTable(codes=2), 1, starts.neurons // 4))
    assert whole > 0.99 > small
    again = starts_of(encoder_folder)
    assert again.cosine(again.student(WordTable(codes=2), 1, starts.neurons // 4)) == small


def test_a_size_gives_a_student(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0.05
    short = ("stages.bottleneck.enabled=false", "stages.recurrent.max_steps=2")
    asked = tiny(f"budget_mib={most}", *short, stage="recurrent")
    seen = []

    def watched(*args: object) -> Starts:
        seen.append(Starts(*args))
        return seen[-1]

    monkeypatch.setattr(budget, "Starts", watched)
    chosen = within_budget(asked, most)
    assert chosen.budget_mib is None
    run_chain(chosen)
    (run,) = (tmp_path / "out/runs").glob("recurrent-*")
    size = graph_bytes(load_folder(run / "student"), "int8") / 2**20
    (kept,) = (tmp_path / "out/cache").glob("budget-*.json")
    pairs = PairStore.open(next((tmp_path / "out/cache").glob("pairs-*/")))
    held_out = pairs.dev_pairs()
    assert {*seen[0].compared} <= {*pairs.source[held_out], *pairs.translation[held_out]}
    shapes = json.loads(kept.read_text())
    assert size <= most
    assert f"{size:.2f} MiB in int8" in shapes[0]["is"]
    assert [s["cosine"] for s in shapes] == sorted((s["cosine"] for s in shapes), reverse=True)
    monkeypatch.setattr(budget, "_search", None)
    assert within_budget(asked, most) == chosen


@pytest.mark.slow
def test_a_smaller_student_is_cut_from_the_larger_one_and_trained_for_less(
    tiny, assistant: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short = ("stages.bottleneck.enabled=false", "stages.recurrent.max_steps=3", "budget_share=0.5")
    asked = tiny("budget_mib=[0.035,0.05]", *short, stage="recurrent")
    run_front(asked)
    records = [json.loads(p.read_text()) for p in (tmp_path / "out/runs").glob("r*/run.json")]
    large, small = sorted(records, key=lambda record: -record["metrics"]["parameters"]["total"])
    assert [large["training"]["steps"], small["training"]["steps"]] == [3, 2]
    assert large["config"]["init"]["source"] == "teacher"
    source = Path(small["config"]["init"]["source"])
    assert source == tmp_path / "out/runs" / large["id"] / "student"
    assert small["config"]["student"]["layers"] <= large["config"]["student"]["layers"]
    for record, most in ((large, 0.05), (small, 0.035)):
        student = load_folder(tmp_path / "out/runs" / record["id"] / "student")
        assert graph_bytes(student, "int8") <= most * 2**20
    caplog.set_level("INFO")
    result = run_front(asked)
    assert caplog.text.count("recurrent: reused (") == 2
    names = [folder.name for folder in result.runs if folder.name.startswith("recurrent")]
    assert names == [large["id"], small["id"]]
    assert result.student == result.runs[-1] / "student"
    assert result.scores == small["metrics"]["scores"]


@pytest.mark.slow
def test_too_small_a_size_is_refused(tiny) -> None:
    asked = tiny("budget_mib=0.001", stage="bottleneck")
    with pytest.raises(UserError, match=r"budget_mib=0\.001: the smallest student has 0\.\d+ MiB"):
        within_budget(asked, 0.001)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("budget_mib=5 student.layers=2", "student.layers: not read, budget_mib chooses it"),
        ("budget_mib=5 student=minilm_tiny", "student: not read, budget_mib chooses it"),
        ("budget_mib=5 init=scratch", "init.source=scratch has none"),
        ("budget_mib=5 init=paper", "init.embedding=random has none"),
        ("budget_mib=5 stage=assistant", "stage=assistant trains no student"),
        ("budget_mib=0", "greater than 0"),
        ("budget_of=fp32", "budget_of=fp32 is only read with budget_mib"),
        ("budget_mib=[3,-1]", "greater than 0"),
        ("budget_mib=[]", "at least 1 item"),
        ("budget_mib=[5,5] budget_share=0.5", "budget_share is only read with several sizes"),
        ("budget_mib=true", "valid list"),
        ("-m budget_mib=3,5", "give several sizes as a list, budget_mib=[8,5]"),
    ],
)
def test_what_a_size_does_not_go_with_is_one_line(
    words: str, message: str, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("mlkd.train", *words.split())
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert message in done.stderr
