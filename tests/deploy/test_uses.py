"""What the vectors of a run, and of what was exported of it, are good for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from students import TEXTS, export, small

from mlkd.config.commands import EvaluateConfig, ExportConfig
from mlkd.deploy.exported import FP32, INT8, open_onnx
from mlkd.encoders.folder import load_folder, save_folder, with_prompt
from mlkd.metrics.scoring import score
from mlkd.metrics.sets import first_pairs, load_sets
from mlkd.metrics.shorter import score_kinds
from mlkd.metrics.sides import oriented, score_sides
from mlkd.metrics.similarity import cosines, unit
from mlkd.output.errors import UserError

KINDS = ["8", "int8", "binary", "8-int8"]


@pytest.fixture(scope="module")
def run(finished_chain: Path) -> Path:
    (found,) = finished_chain.glob("runs/contrastive-*")
    return found


@pytest.fixture(scope="module")
def settings(run: Path) -> dict[str, Any]:
    """The sets that the run was scored on."""
    found: dict[str, Any] = json.loads((run / "run.json").read_text())["config"]["eval"]
    return found


@pytest.fixture(scope="module")
def assistant(finished_chain: Path) -> Path:
    (found,) = finished_chain.glob("runs/assistant-*")
    return found / "student"


def demo(*languages: str) -> dict[str, Any]:
    """Some pairs of the demo's sets."""
    sts = {"kind": "sts", "split": "dev", "format": "demo", "languages": list(languages),
           "pairs": ["en-en", "en-de", "de-fr"]}  # fmt: skip
    bitext = {"kind": "bitext", "split": "test", "format": "demo", "languages": ["de"]}
    return {"sets": {"graded": sts, "found": bitext}, "max_pairs": 60}


def evaluate(model: Path, settings: dict[str, Any], output: Path, **more: Any) -> dict[str, Any]:
    from mlkd.evaluate import main

    values = {"model": str(model), "eval": settings, "output": str(output), **more}
    main(EvaluateConfig.model_validate(values))
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def test_shorter_vectors_of_a_run(
    run: Path, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluate(run, settings, tmp_path / "e.json", vectors=[8, *KINDS[1:]])
    assert list(found["vectors"]) == ["teacher", "assistant", "student"]
    for kinds in found["vectors"].values():
        assert list(kinds) == ["float32", *KINDS]
        assert [entry["bytes"] for entry in kinds.values()] == [64, 32, 16, 2, 8]
    whole = found["vectors"]["student"]["float32"]["scores"]["mean"]
    assert whole == found["scores"]["mean"]
    record = json.loads((run / "run.json").read_text())
    theirs = record["references"]["assistant"]["scores"]["mean"]
    assert found["vectors"]["assistant"]["float32"]["scores"]["mean"] == theirs
    # The first numbers of the student's own vectors.
    student, sets = load_folder(run / "student"), load_sets(EvaluateConfig.model_validate(
        {"model": "x", "eval": settings}).eval)  # fmt: skip
    half = score(lambda texts: student.encode(list(texts), truncate_dim=8), sets, bootstrap=0)
    expected = half["mean"]["dev"]["sts"]
    short = found["vectors"]["student"]["8"]["scores"]["mean"]["dev"]["sts"]
    assert short == pytest.approx(expected, abs=0.5)
    printed = capsys.readouterr().out
    assert f"│ {short:.2f}" in printed or f" {short:.2f} " in printed


def test_of_an_exported_folder_too(run: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    """What an export measured and its card says is what evaluating the folder finds."""
    out = export(run, tmp_path / "out", "portable", "compact", max_loss=100.0, vectors=KINDS)
    report = json.loads((out / "portable/export.json").read_text())["parts"]
    text = (out / "portable/README.md").read_text().partition("## Shorter vectors\n")[2]
    for file in (FP32, INT8):
        found = evaluate(
            out / "portable" / file, settings, tmp_path / f"{Path(file).stem}.json", vectors=KINDS
        )
        assert list(found["vectors"]) == ["teacher", "student"]
        kinds = found["vectors"]["student"]
        for kind, entry in kinds.items():
            mean = entry["scores"]["mean"]
            assert mean == report[file]["vectors"][kind]["scores"]["mean"]
            line = f"| `{file}` | {kind} | {entry['bytes']} | {mean['dev']['sts']:.2f} |"
            assert line in text
    sets = load_sets(EvaluateConfig.model_validate({"model": "x", "eval": settings}).eval)
    again = score_kinds(open_onnx(out / "portable"), sets, ["binary"])
    assert again["binary"]["scores"]["mean"] == report[INT8]["vectors"]["binary"]["scores"]["mean"]
    compact = (out / "compact/README.md").read_text()
    assert "| `model.safetensors` | 8-int8 | 8 | " in compact


def test_an_export_scores_as_many_pairs_as_its_evaluation(
    run: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    few, scored = settings | {"max_pairs": 3}, []
    for number, asked in enumerate((few, settings)):
        out = export(run, tmp_path / str(number), "compact", eval=asked)
        report = json.loads((out / "compact/export.json").read_text())["parts"]
        scored.append(report["model.safetensors"]["scores"]["mean"])
    found = evaluate(run, few, tmp_path / "e.json")
    assert scored[0] == found["scores"]["mean"] != scored[1]


def test_a_card_says_nothing_of_what_was_not_measured(run: Path, tmp_path: Path) -> None:
    out = export(run, tmp_path / "out", "compact")
    assert "Shorter vectors" not in (out / "compact/README.md").read_text()
    report = json.loads((out / "compact/export.json").read_text())["parts"]["model.safetensors"]
    assert "vectors" not in report


def test_more_numbers_than_the_student_has_is_one_line(
    run: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="vectors: 17: vectors of the student have 16 numbers"):
        export(run, tmp_path / "out", "compact", vectors=[17])
    with pytest.raises(UserError, match="vectors: 32-int8: vectors of the teacher have 16 numbers"):
        evaluate(run, settings, tmp_path / "e.json", vectors=["32-int8"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="vectors is not read in the format gguf"):
        ExportConfig.model_validate({"run": str(run), "format": ["gguf"], "vectors": [8]})


def test_queries_of_the_student_and_documents_of_others(
    run: Path, assistant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, names = demo("en", "de", "fr"), ["assistant", "teacher"]
    found = evaluate(run, settings, tmp_path / "e.json", documents=names)["documents"]
    record = json.loads((run / "run.json").read_text())
    assert list(found) == names
    assert found["assistant"]["folder"] == str(assistant.absolute())
    student, large = load_folder(run / "student"), load_folder(assistant)
    student.max_seq_length = large.max_seq_length = record["config"]["data"]["max_tokens"]
    sets = load_sets(EvaluateConfig.model_validate({"model": "x", "eval": settings}).eval)
    sts, bitext = (next(s for s in sets if (s.kind, s.pair) == key) for key in (
        ("sts", "en-de"), ("bitext", "en-de")))  # fmt: skip
    # German asks, English is searched, whichever stands first in the set.
    for name, entry in found["assistant"]["both"]["sets"].items():
        expected = {"graded": {"en-en", "de-en", "de-fr"}, "found": {"de-en"}}[name]
        assert set(entry["pairs"]) == expected
    queries = unit(student.encode(list(bitext.right[:60])))
    documents = unit(large.encode(list(bitext.left[:60])))
    right = (queries @ documents.T).argmax(1) == np.arange(60)
    back = (queries @ documents.T).argmax(0) == np.arange(60)
    numbers = found["assistant"]["both"]["sets"]["found"]["pairs"]["de-en"]
    assert numbers["forward"] == pytest.approx(100 * right.mean(), abs=2)  # equal sentences count
    assert numbers["backward"] == pytest.approx(100 * back.mean(), abs=2)
    mixed = cosines(student.encode(list(sts.right[:60])), large.encode(list(sts.left[:60])))
    from scipy.stats import spearmanr

    graded = found["assistant"]["both"]["sets"]["graded"]["pairs"]["de-en"]["spearman"]
    assert graded == pytest.approx(100 * spearmanr(mixed, sts.scores[:60]).statistic, abs=0.1)
    # Both alone are what evaluating each of them finds.
    for side, model in (("queries", run), ("documents", assistant.parent)):
        alone = evaluate(model, settings, tmp_path / f"{side}.json")["scores"]["sets"]
        pairs = found["assistant"][side]["sets"]["graded"]["pairs"]
        assert pairs["de-en"]["spearman"] == alone["graded"]["pairs"]["en-de"]["spearman"]
        way = found["assistant"][side]["sets"]["found"]["pairs"]["de-en"]
        assert way["forward"] == alone["found"]["pairs"]["en-de"]["backward"]
        assert way["backward"] == alone["found"]["pairs"]["en-de"]["forward"]
    # The teacher reads English only.
    assert set(found["teacher"]["both"]["sets"]["graded"]["pairs"]) == {"en-en", "de-en"}
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"assistant test found de-en {way['forward']:.2f}" not in printed
    line = f"{numbers['forward']:.2f} / {numbers['backward']:.2f}"
    assert line in printed


def test_documents_of_any_folder_for_any_folder(
    run: Path, assistant: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    """An exported folder, whose run is not known, and a run or folder for the documents."""
    out = export(run, tmp_path / "out", "onnx_int8", max_loss=100.0) / "onnx_int8"
    names = [str(assistant), str(assistant.parent)]
    found = evaluate(out, settings, tmp_path / "e.json", documents=names)
    first, second = (found["documents"][name]["both"] for name in names)
    assert first == second
    assert found["documents"][names[0]]["queries"]["mean"]["dev"]["sts"] is not None


def test_documents_that_cannot_be_compared_are_one_line(
    run: Path, assistant: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    from mlkd.evaluate import main

    wide = small(encoder_folder, 4, layers=1, recurrence=1)
    from sentence_transformers.base.modules import Dense

    wide.append(Dense(16, 24))
    save_folder(wide, tmp_path / "wide")
    german = {"sets": {"found": {"kind": "sts", "split": "dev", "format": "demo",
                                 "languages": ["de"], "pairs": ["de-de"]}}}  # fmt: skip
    usual: dict[str, Any] = {"model": str(run), "eval": demo("en", "de", "fr")}
    alone = str(run / "student/1_Pooling")
    for more, message in [
        ({"model": str(assistant.parent), "documents": ["assistant"]}, "has no assistant beside"),
        ({"documents": [str(tmp_path / "wide")]}, "vectors have 24 numbers, the student's 16"),
        ({"documents": [alone]}, "1_Pooling: no encoder; give assistant, teacher, a run"),
        ({"documents": ["teacher"], "eval": german}, "documents=teacher: no set has a side in a"),
    ]:
        with pytest.raises(UserError, match=message) as refused:
            main(EvaluateConfig.model_validate({**usual, **more}))
        assert "\n" not in str(refused.value)


def test_the_source_language_is_that_of_the_documents() -> None:
    config = EvaluateConfig.model_validate({"model": "x", "eval": demo("en", "de", "fr")}).eval
    sets = load_sets(config)
    pairs = {item.pair: item for item in oriented(sets, only_source=False) if item.kind == "sts"}
    assert list(pairs) == ["en-en", "de-en", "de-fr"]
    turned, before = pairs["de-en"], next(s for s in sets if s.pair == "en-de")
    assert (turned.left, turned.right) == (before.right, before.left)
    assert {s.pair for s in oriented(sets, only_source=True)} == {"en-en", "de-en"}
    again = oriented(oriented(sets, only_source=False), only_source=False)
    assert [s.pair for s in again] == [s.pair for s in oriented(sets, only_source=False)]


OUTSIDER = """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
texts = json.loads(sys.argv[2])
found = [model.encode_query(texts), model.encode_document(texts), model.encode(texts)]
alone = [SentenceTransformer(f"{sys.argv[1]}/{side}", device="cpu").encode(texts)
         for side in ("query", "document")]
assert "mlkd" not in sys.modules
print(json.dumps([part.tolist() for part in (*found, *alone)]))
"""


@pytest.fixture(scope="module")
def asymmetric(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("asymmetric")
    return export(run, place / "out", "asymmetric", eval=demo("en", "de", "fr")) / "asymmetric"


@pytest.mark.slow
def test_the_asymmetric_folder_loads_without_mlkd(
    run: Path, assistant: Path, asymmetric: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDER, str(asymmetric), json.dumps(TEXTS)], cwd=tmp_path,
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = [np.array(part) for part in json.loads(done.stdout.splitlines()[-1])]
    student, large = (load_folder(folder).encode(TEXTS) for folder in (run / "student", assistant))
    assert np.abs(student - large).max() > 1e-3
    expected = [student, large, large, student, large]
    for part, right in zip(found, expected, strict=True):
        assert np.abs(part - right).max() <= 1e-5


def test_its_card_says_what_was_measured_on_it(
    asymmetric: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = json.loads((asymmetric / "export.json").read_text())
    text = (asymmetric / "README.md").read_text()
    assert report["documents"]["name"] == "assistant"
    for file in ("query/model.safetensors", "document/model.safetensors"):
        part = report["parts"][file]
        assert part["max_difference"] <= 1e-5
        assert part["mib"] == pytest.approx((asymmetric / file).stat().st_size / 2**20)
        assert f"| `{file}` | {part['mib']:.2f} | " in text
        assert part["latency_ms"]["p50"] > 0
    model = SentenceTransformer(str(asymmetric), device="cpu")
    config = EvaluateConfig.model_validate({"model": "x", "eval": demo("en", "de", "fr")})
    sets = first_pairs(load_sets(config.eval), config.eval.max_pairs)
    again = score_sides(model.encode_query, model.encode_document, sets, only_source=False)
    cells = []
    for side in ("queries", "both", "documents"):
        numbers = report["documents"][side]["sets"]["found"]["pairs"]["de-en"]
        assert numbers == again[side]["sets"]["found"]["pairs"]["de-en"]
        cells.append(f"{numbers['forward']:.2f} / {numbers['backward']:.2f}")
    assert f"| assistant | test | found | de-en | {' | '.join(cells)} |" in text
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(asymmetric)
    exec(snippet, {})


def test_each_side_reads_its_own_prompt(run: Path, assistant: Path, tmp_path: Path) -> None:
    folder = with_prompt(assistant, "passage: ", tmp_path)
    out = export(run, tmp_path / "out", "asymmetric", documents=str(folder)) / "asymmetric"
    model = SentenceTransformer(str(out), device="cpu")
    read = load_folder(assistant).encode([f"passage: {text}" for text in TEXTS])
    assert np.abs(model.encode_document(TEXTS) - read).max() <= 1e-5
    assert np.abs(model.encode(TEXTS) - read).max() <= 1e-5
    queries = load_folder(run / "student").encode(TEXTS)
    assert np.abs(model.encode_query(TEXTS) - queries).max() <= 1e-5
    card = (out / "README.md").read_text()
    assert "read with the prompt 'passage: '" in card and "| other encoder |" in card
    assert not any(
        str(tmp_path) in (out / name).read_text() for name in ("README.md", "export.json")
    )


def test_documents_of_the_teacher(run: Path, encoder_folder: Path, tmp_path: Path) -> None:
    out = export(run, tmp_path / "out", "asymmetric", documents="teacher",
                 eval=demo("en", "de", "fr")) / "asymmetric"  # fmt: skip
    model = SentenceTransformer(str(out), device="cpu")
    expected = load_folder(encoder_folder).encode(TEXTS)
    assert np.abs(model.encode_document(TEXTS) - expected).max() <= 1e-5
    pairs = json.loads((out / "export.json").read_text())["documents"]["both"]["sets"]["graded"]
    assert set(pairs["pairs"]) == {"en-en", "de-en"}


def test_documents_that_do_not_fit_are_not_exported(
    run: Path, assistant: Path, encoder_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    german = {"sets": {"found": {"kind": "sts", "split": "dev", "format": "demo",
                                 "languages": ["de"], "pairs": ["de-de"]}}}  # fmt: skip
    save_folder(small(encoder_folder, 4, layers=1, recurrence=1), tmp_path / "alone/student")
    for model, more, message in [
        (assistant.parent, {}, "has no assistant beside it"),
        (tmp_path / "alone/student", {}, "has no assistant beside it"),
        (tmp_path / "alone/student", {"documents": "teacher"}, "no run that says which it is"),
        (run, {"documents": str(tmp_path)}, "no encoder; give assistant, teacher, a run"),
        (run, {"documents": "teacher", "eval": german}, "no set has a side in a language"),
    ]:
        with pytest.raises(UserError, match=message) as refused:
            export(model, out, "asymmetric", **more)
        assert "\n" not in str(refused.value)
        assert not out.exists()
    for wrong, message in [
        ({"format": ["compact"], "documents": "assistant"}, "only read by the format asymmetric"),
        ({"format": ["asymmetric"], "trim": {}}, "leave trim out"),
    ]:
        with pytest.raises(ValueError, match=message):
            ExportConfig.model_validate({"run": str(run), **wrong})


def test_a_side_that_differs_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlkd.deploy import asymmetric as module

    original = module.write_dense
    monkeypatch.setattr(module, "write_dense", lambda model, folder: original(
        load_folder(run / "student"), folder))  # fmt: skip
    export(run, tmp_path / "out", "asymmetric", "compact", refuses=1)
    assert "refused: its vectors differ" in " ".join(capsys.readouterr().out.split())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["compact"]
