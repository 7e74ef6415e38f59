from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import fake_runtime
from conftest import Command, write_corpus
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from students import TEXTS, as_run, export, own_ranking, small
from transformers import BertConfig, BertModel

from mlkd.config.commands import ExportConfig
from mlkd.deploy.exported import FP32, INT8, Q4, open_onnx
from mlkd.deploy.formats import FORMATS
from mlkd.deploy.source import open_source, target_folder
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.compact import CompactTransformer
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.metrics.similarity import unit
from mlkd.output.errors import UserError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(
    scope="module",
    params=[
        "bert",
        pytest.param("bert_full", marks=pytest.mark.slow),
        pytest.param("xlmr", marks=pytest.mark.slow),
        pytest.param("xlmr_full", marks=[pytest.mark.slow, pytest.mark.by_hand]),
    ],
)
def student(
    request: pytest.FixtureRequest, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Recurrent students of both kinds of backbone: with a bottleneck and without, narrow ones."""
    xlmr = "xlmr" in request.param
    source = request.getfixturevalue(request.param) if xlmr else encoder_folder
    bottleneck = None if request.param == "bert_full" else 4
    folder = tmp_path_factory.mktemp(request.param) / "student"
    neurons = {"intermediate": 24} if request.param == "bert" else {}
    save_folder(small(source, bottleneck, layers=2, recurrence=2, **neurons), folder)
    return folder


@pytest.fixture(scope="module")
def exported(student: Path) -> Path:
    """The formats that are exact, beside the student."""
    return export(student, student.with_name("out"), "compact", "portable", max_loss=100.0)


@pytest.fixture
def bert(encoder_folder: Path, tmp_path: Path) -> Path:
    """A student for what does not depend on its kind."""
    save_folder(small(encoder_folder, 4, layers=2, recurrence=2), tmp_path / "bert/student")
    return tmp_path / "bert/student"


def test_the_compact_folder_is_bit_equal(student: Path, exported: Path) -> None:
    out = exported / "compact"
    assert (load_folder(out).encode(TEXTS) == load_folder(student).encode(TEXTS)).all()
    # The public way, with mlkd installed; the folder brings no code of its own.
    loaded = SentenceTransformer(str(out), device="cpu", trust_remote_code=True)
    assert (loaded.encode(TEXTS) == load_folder(student).encode(TEXTS)).all()
    assert (out / "model.safetensors").stat().st_size == (
        (student / "model.safetensors").stat().st_size
    )
    assert not list(exported.glob(".*"))


def test_the_compact_folder_loads_by_name_from_the_hub(exported: Path, tmp_path: Path) -> None:
    """From its cache, since no hub is reached here."""
    revision = "0" * 40
    repository = tmp_path / "models--me--small"
    shutil.copytree(exported / "compact", repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(revision)
    from_cache: dict[str, Any] = {"cache_folder": str(tmp_path), "local_files_only": True}
    loaded = SentenceTransformer("me/small", device="cpu", trust_remote_code=True, **from_cache)
    expected = load_folder(exported / "compact").encode(TEXTS)
    assert (loaded.encode(TEXTS) == expected).all()
    with pytest.raises(OSError, match="me/other"):
        CompactTransformer.load("me/other", **from_cache)


OUTSIDER = """
import json, sys
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer
texts = json.loads(sys.argv[1])
for folder in map(str.strip, sys.stdin):
    vectors = SentenceTransformer(folder, device="cpu").encode(texts)
    model = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    assert "mlkd" not in sys.modules
    print(json.dumps([vectors.tolist(), pooled.tolist(), model.config.num_hidden_layers]),
          flush=True)
"""


@pytest.fixture(scope="module")
def outsider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process without mlkd that encodes with the folders it is told, one after another."""
    with subprocess.Popen(
        [sys.executable, "-c", OUTSIDER, json.dumps(TEXTS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=tmp_path_factory.mktemp("outside"), env={**os.environ, "HF_HUB_OFFLINE": "1"},
    ) as process:  # fmt: skip
        yield process
        process.kill()


@pytest.mark.slow
def test_the_portable_folder_loads_without_mlkd(
    student: Path, exported: Path, outsider: subprocess.Popen[str]
) -> None:
    assert outsider.stdin and outsider.stdout
    print(exported / "portable", file=outsider.stdin, flush=True)
    said = next((line for line in outsider.stdout if line.startswith("[[")), None)
    assert said, "the process has ended"
    vectors, pooled, depth = json.loads(said)
    expected = load_folder(student).encode(TEXTS)
    assert depth == 4
    assert np.abs(np.array(vectors) - expected).max() <= 1e-5
    assert np.abs(np.array(pooled) - expected).max() <= 1e-5


def model_bytes(array_bytes: int) -> range:
    """Size of a graph that stores so many bytes of weights: its nodes need some, too."""
    return range(array_bytes, array_bytes + 40_000)


def test_onnx_equals_the_student_and_stores_shared_weights_once(
    student: Path, exported: Path
) -> None:
    out = exported / "portable"
    model = load_folder(student)
    report = json.loads((out / "export.json").read_text())
    assert report["parts"]["onnx/model.onnx"]["max_difference"] <= 1e-4
    # Position rows behind the longest input and the second type vector are left out.
    parts = backbone_of(model).embeddings
    before = 2 if model[0].model.config.model_type == "xlm-roberta" else 0
    left_out = parts.position_embeddings.num_embeddings - 16 - before
    left_out += parts.token_type_embeddings.num_embeddings
    stored = sum(p.numel() for p in model.parameters()) - 16 * left_out
    assert (out / "onnx/model.onnx").stat().st_size in model_bytes(4 * stored - 200)


def test_the_onnx_folder_needs_three_packages_only(student: Path, exported: Path) -> None:
    out = exported / "portable"
    script = """
import json, os, signal, sys
from encode import Encoder
texts = json.loads(sys.argv[1])
model = Encoder(threads=2, model="onnx/model.onnx")
vectors = model.encode(texts)
assert not {"torch", "transformers", "mlkd", "onnx"} & set(sys.modules)
child = os.fork()  # a server that has tried its model forks its workers
if not child:
    signal.alarm(120)
    os._exit(model.encode(texts).shape != vectors.shape)
assert os.waitpid(child, 0)[1] == 0, "the worker does not encode"
json.dump(vectors.tolist(), sys.stdout)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(TEXTS)],
        capture_output=True, text=True, check=False, cwd=out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = unit(load_folder(student).encode(TEXTS))
    assert np.abs(np.array(json.loads(done.stdout)) - expected).max() <= 1e-4
    lines = (out / "encode.py").read_text().partition("class Encoder")[2].splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 60  # to be read at a glance


def test_onnx_takes_any_batch_and_length(exported: Path) -> None:
    encode = open_onnx(exported / "portable", file=FP32)
    together = encode([*TEXTS, " ".join(TEXTS)])
    assert np.abs(encode(TEXTS[3:4]) - together[3]).max() <= 1e-5
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert encode([]).shape == (0, 16)


OTHERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "head_of_3": ({"hidden_size": 15, "num_attention_heads": 5}, ["mean"]),
    "head_of_1": ({"num_attention_heads": 16}, ["mean", "Normalize"]),
    "one_head_gelu_new": ({"num_attention_heads": 1, "hidden_act": "gelu_new"}, ["mean"]),
    "relu_cls_dense": ({"hidden_act": "relu"}, ["cls", "Dense", "Normalize"]),
    "silu": ({"hidden_act": "silu"}, ["mean"]),
    "max": ({}, ["max"]),
}


def other_encoder(source: Path, name: str) -> SentenceTransformer:
    """A BERT with other heads, activation, pooling and tail."""
    changes, tail = OTHERS[name]
    model = load_folder(source)
    torch.manual_seed(0)
    config = BertConfig(**{**backbone_of(model).config.to_dict(), **changes})
    model[0].model = BertModel(config, add_pooling_layer=False)
    width = config.hidden_size
    modules = [model[0], Pooling(width, pooling_mode=tail[0])]  # type: ignore[arg-type]
    modules += [Dense(width, 6)] if "Dense" in tail else []  # with a tanh
    modules += [Normalize()] if "Normalize" in tail else []
    return SentenceTransformer(modules=modules, device="cpu").eval()


@pytest.mark.parametrize("name", [name for name in OTHERS if name not in ("silu", "max")])
def test_onnx_of_other_heads_activations_and_tails(
    name: str, encoder_folder: Path, tmp_path: Path
) -> None:
    model = other_encoder(encoder_folder, name)
    texts = [*TEXTS, "", " ".join(TEXTS * 20)]
    expected = unit(model.encode(texts))
    for name in ("portable", "onnx_q4"):
        (tmp_path / name).mkdir()
        FORMATS[name].write(model, tmp_path / name)
    for folder, file, least in (
        ("portable", FP32, 1 - 1e-6), ("portable", INT8, 0.97), ("onnx_q4", Q4, 0.9)
    ):  # fmt: skip
        found = open_onnx(tmp_path / folder, threads=3, file=file)(texts)
        assert (found * expected).sum(1).min() > least, file


@pytest.mark.parametrize(("name", "message"), [("silu", "activation silu"), ("max", "pooling max")])
def test_what_a_graph_cannot_express_is_refused(
    name: str, message: str, encoder_folder: Path
) -> None:
    from mlkd.deploy.onnx_encoder import build_graph

    with pytest.raises(UserError, match=f"onnx: {message} is not supported; allowed: "):
        build_graph(other_encoder(encoder_folder, name), "fp32")


def test_int8_is_small_and_does_not_depend_on_the_batch(
    student: Path, exported: Path, tmp_path: Path
) -> None:
    out = export(student, tmp_path / "out", "onnx_int8", max_loss=100.0)
    report = json.loads((out / "onnx_int8/export.json").read_text())["parts"][INT8]
    assert set(report["dev"]) == {"student", "export"}
    assert report["cosine"]["min"] > 0.97
    if "xlmr" in str(student):  # the others are too small for their graph not to count
        size = (out / "onnx_int8" / INT8).stat().st_size  # 4 wide rows: 4 bytes and a scale
        assert size < 0.55 * (exported / "portable" / FP32).stat().st_size
    encode = open_onnx(out / "onnx_int8")
    texts = sorted(TEXTS, key=len)
    assert np.abs(encode(texts)[0] - encode(texts[:1])[0]).max() <= 1e-5


@pytest.mark.parametrize("lowest", [0.0, 0.5])
def test_int8_products_of_each_row_have_a_scale_of_their_own(lowest: float) -> None:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from mlkd.deploy.graph import GraphBuilder

    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(6, 32, generator=generator), torch.randn(6, generator=generator)
    x = torch.randn(4, 32, generator=generator)
    x[1] *= 1000  # an outlier costs the other rows nothing
    x = x.clamp_min(-lowest) if lowest else x
    x[2] = -lowest  # nothing above the lowest value: a row of zeros where that is 0
    graph = GraphBuilder("int8")
    y, added = graph.product(graph.operand("x", lowest=lowest), "matrix", weight, bias)
    y = graph.op("Add", y, added)
    stored = [numpy_helper.from_array(array, name) for name, array in graph.weights.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 32])]
    outputs = [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["rows", 6])]
    content = helper.make_graph(graph.nodes, "product", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(content, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()  # as in encode.py: sums saturate without VNNI
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    right = x @ weight.T + bias
    error = (found - right).abs().amax(1) / x.abs().amax(1).clamp_min(1)
    assert error.max() < 0.15
    assert torch.allclose(found[2], right[2], atol=0.05)


def test_int8_that_loses_too_much_is_refused(
    student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mlkd.deploy import graph

    original = graph.quantise

    def coarse(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        stored, scale = original(values, axis)
        return (stored // 64).astype(np.int8), scale  # two bits are left

    dev = own_ranking(student, tmp_path)
    export(student, tmp_path / "good", "onnx_int8", eval=dev, max_loss=1.0)
    monkeypatch.setattr(graph, "quantise", coarse)
    out = export(student, tmp_path / "out", "onnx_int8", "portable", refuses=1, eval=dev,
                 max_loss=1.0)  # fmt: skip
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "refused: it loses" in said
    # Each is judged by itself: one folder is none without int8, the other lacks it and says so.
    assert [p.name for p in out.iterdir()] == ["portable"]
    assert not (out / "portable" / INT8).exists()
    assert (out / "portable" / FP32).exists()
    report = json.loads((out / "portable/export.json").read_text())["parts"]
    assert "max_loss=1" in report[INT8]["refused"]
    assert "quantized" not in (out / "portable/README.md").read_text()
    assert open_onnx(out / "portable")(TEXTS).shape == (len(TEXTS), 16)


def test_a_trimmed_export_is_gated_like_int8(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its exact weights, too: that they are those of the trimmed student says nothing of scores."""
    dev = own_ranking(bert, tmp_path)
    write_corpus(tmp_path / "corpus")
    own = {"format": "tsv", "path": "pairs.{source}-{target}.tsv.gz", "targets": ["de"]}
    more = {
        "eval": dev,
        "data": {"root": str(tmp_path / "corpus"), "corpora": {"own": own}},
        "trim": {"languages": ["en", "de"], "min_share": 0.02},
    }
    export(bert, tmp_path / "out", "compact", "portable", max_loss=1.0, refuses=1, **more)
    assert "refused: it loses" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out").exists()
    out = export(bert, tmp_path / "more", "compact", max_loss=200.0, **more)
    report = json.loads((out / "compact/export.json").read_text())["parts"]["model.safetensors"]
    assert report["dev"]["student"] == pytest.approx(100)
    assert report["dev"]["export"] < 99


FILE_LIMIT = """
import resource, sys
from pathlib import Path
from mlkd.config.commands import ExportConfig
from mlkd.export import main
from mlkd.output.errors import UserError
run, out, runtime = sys.argv[1:4]
before = resource.getrlimit(resource.RLIMIT_FSIZE)
for name in ("portable", "onnx_int8", "onnx_q4", "compact", "gguf", "web"):
    own = {} if name in ("compact", "gguf") else {"max_loss": 100}
    own |= {"web": {"runtime": runtime}} if name == "web" else {}
    for size in map(int, sys.argv[4:]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            main(ExportConfig(run=run, format=[name], output=out, **own))
        except UserError as error:
            print(f"{name} {size}: {error}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not list(Path(out).rglob("*")), list(Path(out).rglob("*"))
"""


@pytest.mark.slow
def test_a_full_disk_is_one_line_with_the_path_in_every_format(bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    packages = fake_runtime(tmp_path)
    sizes = ["10", "700", "4000"]  # some file of each format is larger than each of them
    done = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT, str(bert), str(out), str(packages), *sizes],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line for line in done.stdout.splitlines() if "cannot be written" in line]
    assert len(said) == 6 * len(sizes), done.stdout
    for line in said:
        name = line.split()[0]
        assert re.search(rf": {re.escape(str(out))}/{name}(/[\w./]+)?: cannot be written \(", line)


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a file system nobody may write to")
def test_a_place_that_may_only_be_read_is_one_line(bert: Path, command: Command) -> None:
    for name in ("portable", "onnx_int8", "onnx_q4", "compact", "gguf"):
        done = command("mlkd.export", f"run={bert}", f"format=[{name}]", "output=/sys/mlkd")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"error: /sys/mlkd/{name}: cannot be written ("), last


def test_a_run_whose_cache_may_only_be_read_is_trimmed(bert: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    own = {"format": "tsv", "path": "pairs.{source}-{target}.tsv.gz", "targets": ["de"]}
    data = {"root": str(tmp_path / "corpus"), "corpora": {"own": own}}
    run = as_run(bert, tmp_path / "runs/contrastive-0", config={"data": data})
    (tmp_path / "cache").write_text("no folder: nothing can be written into it")
    more: dict[str, Any] = {"trim": {"languages": ["en", "de"]}, "max_loss": 100.0}
    out = export(run, tmp_path / "out", "compact", eval=own_ranking(bert, tmp_path), **more)
    assert json.loads((out / "compact/export.json").read_text())["trim"]["compared"] > 0


def test_the_report_says_sizes_and_differences(bert: Path, tmp_path: Path) -> None:
    out = export(bert, tmp_path / "out", "compact", "portable", max_loss=100.0)
    sizes = {}
    for name in ("compact", "portable"):
        report = json.loads((out / name / "export.json").read_text())["parts"]["model.safetensors"]
        assert report["max_difference"] <= 1e-5
        sizes[name] = report["mib"]
        size = (out / name / "model.safetensors").stat().st_size
        assert report["mib"] == pytest.approx(size / 2**20)
    assert sizes["portable"] > sizes["compact"]


def test_a_format_that_differs_is_refused_and_the_others_are_kept(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlkd.deploy import dense

    original = dense.unrolled

    def wrong(model: SentenceTransformer) -> torch.nn.Module:
        plain = original(model)
        with torch.no_grad():
            plain.encoder.layer[3].output.dense.bias[0] += 0.01  # type: ignore
        return plain

    monkeypatch.setattr(dense, "unrolled", wrong)
    out = export(bert, tmp_path / "out", "portable", "compact", refuses=1)
    assert "refused: its vectors differ" in " ".join(capsys.readouterr().out.split())
    assert [p.name for p in out.iterdir()] == ["compact"]
    export(bert, tmp_path / "none", "portable", refuses=1)
    assert not (tmp_path / "none").exists()


def test_a_run_its_student_and_a_copy_are_found(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = as_run(bert, tmp_path / "contrastive-0")
    assert open_source(str(run)) == open_source(str(run / "student"))
    assert open_source(str(run)).name == "contrastive-0"
    assert open_source(str(bert)).record == {}
    monkeypatch.chdir(run / "student")
    assert open_source(".") == open_source(str(run))


def test_bad_input_gets_one_line(
    bert: Path, encoder_folder: Path, tmp_path: Path,
    command: Command,
) -> None:  # fmt: skip
    unfinished = as_run(bert, tmp_path / "unfinished", status="running")
    changed = as_run(bert, tmp_path / "changed", outputs={"student": {"content": "0", "files": {}}})
    full = tmp_path / "full"
    (full / "mine").mkdir(parents=True)
    out = str(tmp_path / "out")
    for arguments, message in [
        ([f"run={unfinished}"], "unfinished (running)"),
        ([f"run={changed}"], "not the folder that the run wrote"),
        ([f"run={encoder_folder}"], "no student"),
        ([f"run={full}"], "no student"),
        ([f"run={tmp_path / 'nowhere'}"], "no such folder"),
        ([f"run={bert}", "format=[onxn]"], "format.0=onxn"),
        ([f"run={bert}", "format=[]"], "format"),
        ([f"run={bert}", "format=[compact,compact]"], "compact is named twice"),
        ([f"run={bert}", "max_loss=-1"], "max_loss=-1"),
        ([f"run={bert}", f"output={full}"], "not empty (mine)"),
        ([], "run: a value is needed"),
    ]:  # fmt: skip
        extra = [] if any(a.startswith("output=") for a in arguments) else [f"output={out}"]
        before = sorted(tmp_path.rglob("*"))
        done = command("mlkd.export", *arguments, *extra)
        assert done.returncode == 2, (arguments, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert message in done.stderr
        assert sorted(tmp_path.rglob("*")) == before


def test_the_record_of_a_run_says_which_sets_select(bert: Path, tmp_path: Path) -> None:
    dev = own_ranking(bert, tmp_path).model_dump(mode="json")
    recorded = {"eval": {**dev, "no_longer_known": 1}}
    run = as_run(bert, tmp_path / "contrastive-0", config=recorded)
    out = export(run, tmp_path / "out", "onnx_int8", max_loss=1.0)
    report = json.loads((out / "onnx_int8/export.json").read_text())["parts"][INT8]
    assert report["dev"]["student"] == pytest.approx(100)


def test_the_assistant_of_a_run_is_exported_too(assistant: Path, tmp_path: Path) -> None:
    out = export(assistant, tmp_path / "exported", "portable", max_loss=100.0) / "portable"
    expected = load_folder(assistant / "student").encode(TEXTS)
    plain = SentenceTransformer(str(out), device="cpu")
    assert np.allclose(plain.encode(TEXTS), expected, atol=1e-5)
    assert np.allclose(open_onnx(out, file=FP32)(TEXTS), unit(expected), atol=1e-5)


def test_a_second_format_joins_the_first(bert: Path, tmp_path: Path) -> None:
    out = export(bert, tmp_path / "out", "compact")
    export(bert, out, "onnx_int8", max_loss=100.0)
    assert sorted(p.name for p in out.iterdir()) == ["compact", "onnx_int8"]
    source = open_source(str(bert))
    again = ExportConfig(run=str(bert), format=["compact"], output=str(out))
    with pytest.raises(UserError, match="not empty"):
        target_folder(again, source)


def test_wrong_input_is_refused_without_importing_torch() -> None:
    code = "import mlkd.export, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_an_upload_that_fails_says_where_the_export_is(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlkd.deploy.race.encoding_mib", lambda *_: None)  # as without /proc
    with pytest.raises(UserError, match=r"push.repo=me/small: .*the export itself is in"):
        export(bert, tmp_path / "out", "compact", push={"repo": "me/small"})
    assert (tmp_path / "out/compact/model.safetensors").is_file()
