"""Exports in 4 bits: how numbers are packed, and what becomes of a student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import Command
from onnx import TensorProto, helper, numpy_helper
from students import TEXTS, export, own_ranking, small

from mlkd.config.formats import Q4Config
from mlkd.deploy import graph as module
from mlkd.deploy.exported import FP32, Q4, exported, open_graph, open_onnx, stored_parameters
from mlkd.deploy.formats import FORMATS
from mlkd.deploy.graph import GraphBuilder
from mlkd.deploy.mining import open_encoder
from mlkd.deploy.quantise import BLOCK, quantise_4bit
from mlkd.deploy.snippets import other_tools
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.metrics.similarity import unit
from mlkd.output.errors import UserError


def test_numbers_in_a_byte_by_hand() -> None:
    row = np.zeros(40, np.float32)
    row[:5] = -4, 3.5, 0.2, 0.3, 1.25  # the farthest from 0 is -4: the scale is a half
    row[32:34] = 16, -2  # of the second block it is 16: the scale is -2
    stored, scale = quantise_4bit(row[None])
    assert scale.dtype == np.float16
    assert scale.tolist() == [[0.5, -2]]
    assert stored.shape == (1, 2, BLOCK // 2)
    # -8, 7, 0, 1, 2 (of 2.5, to even) and zeros, each with 8 added; the second of two is upper.
    assert stored[0, 0].tolist() == [0xF0, 0x98, 0x8A, *[0x88] * 13]
    assert stored[0, 1].tolist() == [0x90, *[0x88] * 15]


def restored(packed: np.ndarray, scale: np.ndarray, width: int) -> np.ndarray:
    """What 4 bits stand for, number by number; ``packed`` is ``(n, blocks, BLOCK / 2)``."""
    rows = np.zeros((len(packed), width))
    for i in range(len(packed)):
        for k in range(width):
            byte = int(packed[i, k // BLOCK, k % BLOCK // 2])
            four = byte >> 4 if k % 2 else byte & 15
            rows[i, k] = (four - 8) * float(scale[i, k // BLOCK])
    return rows


def run(graph: GraphBuilder, result: str, name: str, value: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of nodes."""
    kind = TensorProto.INT64 if value.dtype == np.int64 else TensorProto.FLOAT
    stored = [numpy_helper.from_array(array, name) for name, array in graph.weights.items()]
    inputs = [helper.make_tensor_value_info(name, kind, list(value.shape))]
    outputs = [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)]
    content = helper.make_graph(graph.nodes, "part", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(content, opset_imports=opsets, ir_version=9)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    found: np.ndarray = session.run(None, {name: value})[0]
    return found


def test_nothing_is_further_off_than_half_a_step() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 96)).astype(np.float32)
    rows[3] = 0
    rows[4] *= 1e-6  # below what a scale may be
    packed, scale = quantise_4bit(rows)
    error = np.abs(restored(packed, scale, 96) - rows)
    steps = np.repeat(np.abs(scale.astype(np.float64)), BLOCK, axis=1)
    blocks = np.abs(rows).reshape(50, 3, BLOCK).max(2)
    # Opposite to the farthest there are 7 steps, so that as far on that side costs one.
    assert (error <= steps * 1.01).all()
    assert (error.reshape(50, 3, BLOCK).max(2) <= np.maximum(blocks / 7.9, 1e-4)).all()
    assert not error[3].any()


@pytest.mark.parametrize("width", [16, 32, 70])
def test_onnx_runtime_multiplies_by_what_is_stored(width: int) -> None:
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((6, width)).astype(np.float32)
    x = draw.integers(-127, 128, (3, 4, width)).astype(np.float32)
    x[..., ::BLOCK] = 127  # so that rounding a block to int8 changes nothing
    graph = GraphBuilder("q4")
    y, added = graph.product(graph.operand("x"), "matrix", torch.from_numpy(weight), None)
    assert added == ""
    found = run(graph, y, "x", x)
    expected = np.zeros((3, 4, 6))
    rows = restored(*quantise_4bit(weight), width)
    for a in range(3):
        for b in range(4):
            for m in range(6):
                expected[a, b, m] = sum(x[a, b, k] * rows[m, k] for k in range(width))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("width", [4, 7, 32, 50])
def test_onnx_runtime_finds_rows_of_4_bits(width: int) -> None:
    table = np.random.default_rng(0).standard_normal((9, width)).astype(np.float32)
    graph = GraphBuilder("q4", Q4Config(table="int4"))
    rows = graph.rows("ids", "words", torch.from_numpy(table))
    ids = np.array([[3, 0], [8, 3]])
    found = run(graph, rows, "ids", ids)
    expected = restored(*quantise_4bit(table), width)
    assert found.shape == (2, 2, width)
    assert np.abs(found - expected[ids]).max() <= 1e-3 * np.abs(expected).max()  # float16


@pytest.mark.parametrize(("codes", "parts"), [(None, 3), (6, 6), (12, 12)])
def test_codes_with_a_centroid_a_row_are_the_table(codes: int | None, parts: int) -> None:
    table = np.random.default_rng(0).integers(-100, 100, (200, 12)).astype(np.float32)
    graph = GraphBuilder("q4", Q4Config(table="pq", codes=codes))
    rows = graph.rows("ids", "words", torch.from_numpy(table))
    ids = np.array([[3, 0], [199, 3]])
    assert (run(graph, rows, "ids", ids) == table[ids]).all()  # float16 holds these numbers
    assert graph.weights["words.codes"].shape == (200, parts)
    assert graph.weights["words.codes"].nbytes == 200 * parts
    assert graph.weights["words.centroids"].nbytes == 256 * 12 * 2


def test_codes_are_the_same_for_the_same_table() -> None:
    """Where rows share centroids: the nearest one of each part, found by a loop."""
    table = np.random.default_rng(0).standard_normal((600, 4)).astype(np.float32)
    stored = []
    for _ in range(2):
        graph = GraphBuilder("q4", Q4Config(table="pq", codes=2))
        graph.rows("ids", "words", torch.from_numpy(table))
        stored.append(graph.weights)
    assert (stored[0]["words.codes"] == stored[1]["words.codes"]).all()
    assert (stored[0]["words.centroids"] == stored[1]["words.centroids"]).all()
    codes, centroids = (stored[0][f"words.{part}"] for part in ("codes", "centroids"))
    halves = centroids.astype(np.float64).reshape(2, 256, 2)
    for i in range(0, 600, 50):
        for part in range(2):
            own = table[i, 2 * part : 2 * part + 2]
            distances = [float(np.square(own - point).sum()) for point in halves[part]]
            assert distances[codes[i, part]] <= min(distances) + 1e-3  # of rounded centroids


@pytest.fixture(scope="module", params=["int4", "int8"])
def table(request: pytest.FixtureRequest) -> str:
    """How the word table is stored."""
    return str(request.param)


@pytest.fixture(scope="module")
def student(
    table: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two stored layers that run twice; a BERT with a table of an odd width, an XLM-R for int8."""
    source = request.getfixturevalue("encoder_folder" if table == "int4" else "xlmr")
    made = tmp_path_factory.mktemp(table) / "student"
    save_folder(small(source, 5 if table == "int4" else None, layers=2, recurrence=2), made)
    return made


@pytest.fixture(scope="module")
def folder(student: Path, table: str) -> Path:
    """Its export."""
    out = student.with_name("out")
    return export(student, out, "onnx_q4", q4={"table": table}, max_loss=100.0) / "onnx_q4"


def test_the_folder_is_like_that_of_int8(student: Path, folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"encode.py", "tokenizer.json", "config.json", "README.md", "onnx"} <= names
    assert [path.name for path in (folder / "onnx").iterdir()] == ["model_q4.onnx"]
    report = json.loads((folder / "export.json").read_text())["parts"][Q4]
    assert report["mib"] == (folder / Q4).stat().st_size / 2**20
    assert set(report["dev"]) == {"student", "export"}
    assert report["cosine"]["min"] > 0.9
    encode = open_onnx(folder)
    vectors, expected = np.asarray(encode(TEXTS)), unit(load_folder(student).encode(TEXTS))
    assert (vectors * expected).sum(1).min() > 0.9
    assert np.abs(encode(TEXTS[:1])[0] - vectors[0]).max() <= 1e-5  # whatever else is encoded
    assert (np.asarray(open_encoder(str(folder))(TEXTS)) == vectors).all()


def test_bytes_are_those_of_the_shapes(student: Path, folder: Path, table: str) -> None:
    stored = {x.name: x for x in onnx.load(folder / Q4).graph.initializer}
    model = load_folder(student)[0].model
    expected = 0
    for name, parameter in model.named_parameters():
        if "encoder.layer" in name and parameter.ndim == 2:
            rows, width = parameter.shape
            blocks = -(-width // BLOCK)
            expected += rows * blocks * (BLOCK // 2 + 2)  # and a scale of two bytes
    layers = [x for name, x in stored.items() if name.startswith("layer.")]
    found = sum(len(x.raw_data) for x in layers if x.name.endswith((".q4", ".scale")))
    assert found == expected
    words = model.get_input_embeddings()
    count, width = getattr(words, "table", words).weight.shape
    size = sum(len(x.raw_data) for x in stored.values() if x.name.startswith("words."))
    blocks = -(-width // BLOCK)
    assert size == count * (-(-width // 2) + 2 * blocks if table == "int4" else width + 2)


def test_parameters_and_precision_are_said(
    student: Path, folder: Path, table: str, tmp_path: Path
) -> None:
    graph = exported(folder)
    assert graph is not None
    assert (graph.file, graph.precision) == (Q4, "q4")
    FORMATS["portable"].write(load_folder(student), tmp_path)
    whole = exported(tmp_path / FP32)
    assert whole is not None
    found, expected = stored_parameters(graph), stored_parameters(whole)
    if table == "int4":  # a byte holds two numbers, and rows of 5 take 3
        expected["embedding"] += len(load_folder(student).tokenizer)
        expected["total"] += len(load_folder(student).tokenizer)
    assert found == expected
    assert np.asarray(open_graph(graph)(TEXTS)).shape == (len(TEXTS), 16)


def test_the_card_shows_the_name_that_each_tool_has_for_it(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert '"onnx_q4", { dtype: "q4" }' in card
    assert 'model_file="onnx/model_q4.onnx"' in card
    assert "`onnx/model_q4.onnx`" in card
    assert "library_name: transformers.js" in card
    assert '"q8"' in other_tools("onnx_int8", "x", "onnx/model_quantized.onnx", 16, True)


def test_4_bits_that_lose_too_much_are_refused(
    encoder_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = module.quantise_4bit

    def coarse(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stored, scale = original(rows)
        return stored & 0x88, scale  # a bit is left

    student = tmp_path / "student"
    save_folder(small(encoder_folder, None, layers=2, recurrence=2), student)
    monkeypatch.setattr(module, "quantise_4bit", coarse)
    more: dict[str, Any] = {"eval": own_ranking(student, tmp_path), "q4": {"table": "int4"}}
    export(student, tmp_path / "out", "onnx_q4", refuses=1, max_loss=1.0, **more)
    assert "refused: it loses" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_student_with_codes(encoder_folder: Path, tmp_path: Path) -> None:
    model = small(encoder_folder, None, layers=2, recurrence=2)
    FORMATS["onnx_q4"].write(model, tmp_path, q4=Q4Config(table="pq", codes=8))
    vectors = np.asarray(open_onnx(tmp_path)(TEXTS))
    assert (vectors * unit(model.encode(TEXTS))).sum(1).min() > 0.9
    stored = onnx.load(tmp_path / Q4).graph.initializer
    size = {x.name: len(x.raw_data) for x in stored if x.name.startswith("words.")}
    count, width = model[0].model.get_input_embeddings().weight.shape
    del size["words.first"]  # where the centroids of each part begin
    assert size == {"words.codes": count * 8, "words.centroids": 256 * width * 2}
    graph = exported(tmp_path)
    assert graph is not None
    positions = 16 * width  # of the longest input
    norm = 2 * width
    found = stored_parameters(graph)["embedding"]
    assert found == count * 8 + 256 * width + positions + norm
    with pytest.raises(UserError, match=r"^q4.codes=5: the word table is 16 wide; allowed: 1, 2,"):
        FORMATS["onnx_q4"].write(model, new(tmp_path), q4=Q4Config(table="pq", codes=5))


def new(folder: Path) -> Path:
    """An empty folder in another."""
    (folder / "new").mkdir()
    return folder / "new"


def test_wrong_settings_get_one_line(
    encoder_folder: Path, tmp_path: Path, command: Command
) -> None:
    for arguments, message in [
        (["format=[onnx_q4]", "q4={table: int5}"], "q4.table=int5"),
        (["format=[onnx_q4]", "q4={tabel: int4}"], "q4.tabel"),
        (["format=[onnx_int8]", "q4={table: int4}"], "q4 is only read by the format onnx_q4"),
        (["format=[onnx_q4]", "q4={table: int4, codes: 8}"], "codes=8 is only read with table=pq"),
        (["format=[onnx_q4]", "q4={table: pq, codes: 0}"], "q4.codes=0"),
        (["format=[onnx_q5]"], "format.0=onnx_q5"),
    ]:
        done = command(
            "mlkd.export", f"run={encoder_folder}", f"output={tmp_path / 'out'}", *arguments
        )
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert message in done.stderr
    assert not (tmp_path / "out").exists()
