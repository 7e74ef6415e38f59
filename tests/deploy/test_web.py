"""The page that searches in a browser: what its folder holds, what is refused, and that it runs."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browse, fake_runtime, runtime
from conftest import Command
from students import export, own_ranking, small
from targets import ROOT, data, texts

from mlkd.config.commands import ExportConfig
from mlkd.data.demo import LANGUAGES
from mlkd.deploy.exported import INT8, Q4, open_onnx
from mlkd.deploy.source import Source
from mlkd.deploy.web.inputs import PACKAGES, Text, read_texts, texts_of
from mlkd.encoders.folder import save_folder
from mlkd.output.errors import UserError


@pytest.fixture(scope="module")
def bert(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert") / "student"
    save_folder(small(encoder_folder, 4, layers=2, recurrence=2), folder)
    return folder


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_runtime(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="module")
def page(bert: Path, packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, beside that of ``onnx_int8``."""
    out = tmp_path_factory.mktemp("page") / "out"
    more: dict[str, Any] = {"web": {"runtime": str(packages)}, "max_loss": 100.0}
    return export(bert, out, "onnx_int8", "web", **more) / "web"


def index_of(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((page / "search.json").read_text(encoding="utf-8"))
    return found


def test_the_folder_is_that_of_int8_and_a_page(page: Path) -> None:
    usual = page.with_name("onnx_int8")
    names = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    shared = {p.relative_to(usual).as_posix() for p in usual.rglob("*") if p.is_file()}
    scripts = {f"runtime/{name}" for package in PACKAGES for name in package.files.values()}
    licences = {f"runtime/LICENSE-{name}.txt" for name in ("onnxruntime-web", "tokenizers")}
    own = {"index.html", "search.js", "style.css", "search.json", "vectors.bin"}
    assert names == shared | own | scripts | licences
    for name in (INT8, "tokenizer.json", "tokenizer_config.json", "encode.py"):
        assert (page / name).read_bytes() == (usual / name).read_bytes()
    reports = [json.loads((p / "export.json").read_text())["parts"][INT8] for p in (page, usual)]
    assert reports[0]["scores"] == reports[1]["scores"]  # one graph, judged once
    assert "latency_ms" not in reports[0]  # of Python, not of a browser


def test_the_vectors_of_the_texts_are_those_of_the_graph(page: Path) -> None:
    index = index_of(page)
    stored = np.frombuffer((page / "vectors.bin").read_bytes(), np.int8)
    encoded = [*index["texts"], *(example["text"] for example in index["examples"])]
    stored = stored.reshape(len(encoded), -1).astype(float)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    expected = open_onnx(page)(encoded)
    shutil.rmtree(page / "__pycache__", ignore_errors=True)
    assert (stored * expected).sum(1).min() > 0.9999
    assert index["bytes"] == {name: (page / name).stat().st_size for name in index["bytes"]}
    assert index["longest"] == 16


def test_the_embedded_sentences_are_searched_unless_a_file_is_given(page: Path) -> None:
    index = index_of(page)
    assert index["languages"] == list(LANGUAGES)
    counts = np.bincount(index["language"])
    assert len(set(counts)) == 1
    assert counts[0] > 200
    german = [t for t, i in zip(index["texts"], index["language"], strict=True) if i == 1]
    assert any("ü" in text for text in german)
    assert [example["language"] for example in index["examples"]] == list(LANGUAGES)
    assert not {example["text"] for example in index["examples"]} & set(index["texts"])


def test_nothing_in_the_folder_names_this_machine_or_another(page: Path, packages: Path) -> None:
    here = {str(page.parents[2]), str(packages.parent), str(Path.home()) + "/"}
    host = socket.gethostname()
    for path in page.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for name in (*here, *([host] if len(host) > 5 else [])):
            assert name.encode() not in content, (path, name)
    for name in ("index.html", "search.js", "style.css"):
        text = (page / name).read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\s<\"'`]*", text)) <= {"http://127.0.0.1:8000"}
        assert not re.search(r"""(?:src|href|fetch\(|from )=?["']/""", text)
    assert "connect-src 'self'" in (page / "index.html").read_text(encoding="utf-8")


def test_the_card_says_how_the_page_is_served(page: Path) -> None:
    card = (page / "README.md").read_text(encoding="utf-8")
    assert "searches 1,055 texts" in card
    assert "python -m http.server" in card
    assert "onnxruntime-web 1.30.0 and @huggingface/tokenizers 0.2.0" in card
    assert f"| `{INT8}` |" in card


def test_texts_of_a_file(tmp_path: Path, bert: Path, packages: Path) -> None:
    plain = tmp_path / "texts.txt"
    content = "Wo ist\t mein  Paket?\n\n\u200b\nGood morning.\nGood morning.\n"
    plain.write_text(content, encoding="utf-8")
    assert read_texts(plain) == [Text("", "Wo ist mein Paket?"), Text("", "Good morning.")]
    with_language = tmp_path / "texts.TSV.gz"
    content = "de\tWo ist mein Paket?\n\n \n\u200b\npt_BR\tBom dia.\nde\t\n"
    content += "de\t\u2060\npt-BR\tBom  dia.\n"
    with_language.write_bytes(gzip.compress(content.encode()))
    expected = [Text("de", "Wo ist mein Paket?"), Text("pt-BR", "Bom dia.")]
    assert read_texts(with_language) == expected
    web = {"runtime": str(packages), "texts": str(plain)}
    out = export(bert, tmp_path / "out", "web", web=web, max_loss=100.0) / "web"
    index = index_of(out)
    assert index["texts"] == ["Wo ist mein Paket?", "Good morning."]
    assert (index["languages"], index["language"]) == ([""], [0, 0])
    assert index["examples"] == [{"language": "", "text": "Wo ist mein Paket?"}]
    assert (out / "vectors.bin").stat().st_size == 3 * 16  # an example is the first


def chosen(packages: Path, languages: list[str], **more: Any) -> list[str]:
    """Languages of the texts of a student of some languages."""
    corpus = {"format": "tsv", "source": "en", "path": "{target}.tsv", "targets": languages}
    record = {"config": {"data": {"corpora": {"own": corpus}}}}
    config = ExportConfig(run=".", format=["web"], web={"runtime": str(packages)}, **more)
    found, _ = texts_of(config, Source("one", packages, record))
    return list(dict.fromkeys(text.language for text in found))


def test_embedded_sentences_are_in_languages_of_the_student(packages: Path) -> None:
    assert chosen(packages, ["de", "pl"]) == ["en", "de"]
    assert chosen(packages, ["de", "fr"], trim={"languages": ["fr"]}) == ["fr"]
    assert chosen(packages, ["de", "fr"], trim={}) == ["en", "de", "fr"]
    message = "the embedded sentences are in en, de, fr, es, tr, the student is for pl"
    with pytest.raises(UserError, match=message):
        chosen(packages, ["pl"], trim={"languages": ["pl"]})


def test_a_trimmed_student_has_a_page(bert: Path, packages: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "web": {"runtime": str(packages)}, "trim": {"languages": ["de"]}, "max_loss": 200.0,
        "data": {"corpora": {"demo": {"format": "demo", "source": "en", "targets": ["de"]}}},
    }  # fmt: skip
    out = export(bert, tmp_path / "out", "web", **more) / "web"
    assert index_of(out)["languages"] == ["de"]
    assert json.loads((out / "export.json").read_text())["trim"]["kept"] > 0


def test_4_bits(bert: Path, packages: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"q4": {"table": "int8"}, "max_loss": 200.0}
    web = {"runtime": str(packages), "weights": "q4"}
    out = export(bert, tmp_path / "out", "web", "onnx_q4", web=web, **more)
    assert (out / "web" / Q4).read_bytes() == (out / "onnx_q4" / Q4).read_bytes()
    assert index_of(out / "web")["graph"] == Q4


def test_a_graph_that_loses_too_much_leaves_nothing(
    bert: Path, packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.deploy import graph

    original = graph.quantise

    def coarse(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        stored, scale = original(values, axis)
        return (stored // 64).astype(np.int8), scale

    monkeypatch.setattr(graph, "quantise", coarse)
    web = {"runtime": str(packages)}
    export(bert, tmp_path / "out", "web", web=web, eval=own_ranking(bert, tmp_path), max_loss=1.0,
           refuses=1)  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_one_line(
    bert: Path, packages: Path, tmp_path: Path, command: Command
) -> None:
    old = fake_runtime(tmp_path / "old", onnxruntime_web="1.22.0")
    new = fake_runtime(tmp_path / "new", tokenizers="1.0.0")
    part = fake_runtime(tmp_path / "part")
    (part / "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm").unlink()
    deep = fake_runtime(tmp_path / "deep")
    (deep / "onnxruntime-web/package.json").write_text("[" * 100_000)
    lone = fake_runtime(tmp_path / "lone")
    shutil.rmtree(lone / "@huggingface")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "three.tsv").write_text("de\tWo?\nde\tWo?\tWhere?\n")
    (tmp_path / "code.tsv").write_text("german\tWo?\n")
    (tmp_path / "bytes.txt").write_bytes(b"Wo?\n\xff\n")
    out = tmp_path / "out"

    def web(folder: Path, texts: str = "") -> str:
        more = f", texts: {tmp_path / texts}" if texts else ""
        return f"web={{runtime: {folder}{more}}}"

    good = web(packages)
    for words, message in [
        ([], "format web needs its runtime: give web={runtime: node_modules}"),
        (["web={texts: a.txt}"], "web.runtime"),
        (
            [web(tmp_path / "nowhere")],
            "nowhere: no package onnxruntime-web in it; give",
        ),
        ([web(deep)], "no package onnxruntime-web in it"),
        ([web(lone)], "no package @huggingface/tokenizers in it; give the node_modules that `"),
        ([web(old)], "onnxruntime-web is '1.22.0'; allowed: from 1.30, below 2.0; tried: 1.30.0"),
        ([web(new)], "tokenizers is '1.0.0'; allowed: from 0.2, below 0.3; tried: 0.2.0"),
        ([web(part)], "onnxruntime-web 1.30.0 has no dist/ort-wasm-simd-threaded.wasm"),
        ([web(packages, "none.txt")], "none.txt: no such file; give a text file"),
        ([web(packages, "empty.txt")], "empty.txt: it has no texts"),
        ([web(packages, "three.tsv")], "three.tsv:2: 3 columns, not language and text"),
        ([web(packages, "code.tsv")], "code.tsv:1: 'german' is no language"),
        ([web(packages, "bytes.txt")], "bytes.txt:2: not UTF-8"),
        ([good, "format=[portable]"], "web is only read by the format web"),
        ([good, "q4={}"], "q4 is only read by the format onnx_q4, and web with weights=q4"),
        ([good, "push={repo: me/small}"], "push: web is a folder for a web server, no model"),
    ]:
        before = sorted(tmp_path.rglob("*"))
        formats = [] if any(word.startswith("format=") for word in words) else ["format=[web]"]
        done = command("mlkd.export", f"run={bert}", f"output={out}", *formats, *words)
        assert done.returncode == 2, (words, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert message in done.stderr
        assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_runtime_is_said_before_torch_is_imported(bert: Path, tmp_path: Path) -> None:
    code = """
import sys
from mlkd.config.commands import ExportConfig
from mlkd.export import main
from mlkd.output.errors import UserError
try:
    main(ExportConfig(run=sys.argv[1], format=["web"], web={"runtime": "none"}))
except UserError as error:
    print(error)
assert "torch" not in sys.modules and "onnxruntime" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code, str(bert)], cwd=tmp_path, check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert "web.runtime=none: no package onnxruntime-web in it" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("weights", ["int8", "q4"])
def test_a_browser_searches(weights: str, tmp_path: Path) -> None:
    """An untrained student, whose hits mean nothing: that they are right, its cosines say."""
    if not (shutil.which("npm") and shutil.which("chromium")):
        pytest.skip("needs Node, npm and Chromium")
    web = {"runtime": str(runtime()), "weights": weights}
    folder = export(data() / "student", tmp_path / "out", "web", web=web, max_loss=100.0) / "web"
    found = browse(folder, "Wo ist mein Paket?", list(texts().values()), ROOT / "browser.json")
    assert found["problems"] == []
    assert found["requests"]
    assert all(url.startswith(found["address"]) for url in found["requests"])
    assert found["ratio"] < 1.15
    assert min(found["first_hits_ms"]) < 3000
    assert min(found["first_hits_ms"]) < min(found["ready_ms"])
    assert found["phone_width"] == 360
    assert "Run python -m http.server in its folder" in found["as_file"]
    assert found["empty"] == "Type a sentence to search 1,055 texts."
    assert re.fullmatch(
        r"10 of 1,055 texts\. Encoded in [\d.]+ ms, searched in [\d.]+ ms\.", found["status"]
    )
    # Vectors of the browser are Python's, but for single activations that are rounded otherwise.
    assert found["cosines"][0] > 0.999
    assert found["cosines"].mean() > 0.999
    assert found["cosines"].min() > 0.997
    index = index_of(folder)
    cosines = open_onnx(folder)(index["texts"]) @ open_onnx(folder)(["Wo ist mein Paket?"])[0]
    best = [index["texts"][row] for row in np.argsort(-cosines)[:10]]
    hits = [text for text, _, _ in found["hits"]]
    assert len(set(hits) & set(best)) >= 8
    assert [float(score) for _, _, score in found["hits"]] == sorted(
        (float(score) for _, _, score in found["hits"]), reverse=True
    )
    assert float(found["hits"][0][2]) == pytest.approx(cosines.max(), abs=0.01)
    assert {language for _, language, _ in found["in_language"]} == {"Turkish"}
