from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ENGLISH
from students import export, small

from mlkd.config.commands import EvaluateConfig
from mlkd.config.schema import TrainConfig
from mlkd.deploy.formats import FORMATS
from mlkd.deploy.judge import judge
from mlkd.metrics.memory import encoding_mib
from mlkd.metrics.speed import race
from mlkd.output.errors import UserError


def test_encoders_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlkd.metrics.speed.SETTLE_SECONDS", 0.0)  # one untimed call
    calls: list[tuple[str, int]] = []

    def contestant(name: str) -> Callable[[Sequence[str]], np.ndarray]:
        def encode(sentences: Sequence[str]) -> np.ndarray:
            calls.append((name, len(sentences)))
            return np.zeros((len(sentences), 2))

        return encode

    measured = race({n: contestant(n) for n in "ab"}, ["x"] * 10, batch_size=4, passes=2)
    assert [name for name, _ in calls] == ["a", "a", "b", "b"] * (len(calls) // 4)
    assert [size for name, size in calls if name == "a"] == [1, 4, 1, 4, 1, 2] * 3 + [1, 1] * 10
    for numbers in measured.values():
        assert numbers["sentences_per_s"] > 0
        assert 0 < numbers["latency_ms"]["p50"] <= numbers["latency_ms"]["p95"]
    with pytest.raises(ValueError, match="race needs"):
        race({}, [], batch_size=4)


def test_memory_of_a_process_that_only_encodes(encoder_folder: Path, tmp_path: Path) -> None:
    student = small(encoder_folder, 4, layers=2, recurrence=2)
    (tmp_path / "onnx").mkdir()
    FORMATS["onnx_int8"].write(student, tmp_path / "onnx")
    measured = encoding_mib(tmp_path / "onnx", ENGLISH, threads=1)
    assert measured is not None
    assert 10 < measured["libraries"] < 300  # torch alone would be more
    assert 0 < measured["above"] < 100


def test_a_run_is_evaluated_as_it_was_when_it_ended(
    finished_chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlkd.evaluate import main

    (run,) = finished_chain.glob("runs/contrastive-*")
    record = json.loads((run / "run.json").read_text())
    assert record["config"]["data"]["max_tokens"] == 16
    output = tmp_path / "evaluation.json"
    settings = {
        "model": str(run),
        "eval": record["config"]["eval"],
        "output": str(output),
    }
    main(EvaluateConfig.model_validate(settings))  # the teacher is that of the run, too
    assert json.loads(output.read_text())["scores"] == record["metrics"]["scores"]
    assert "warning" not in capsys.readouterr().err
    (tmp_path / "other-en.tsv").write_text("nobody kept this out\tor this\t1\na\tb\t2\n")
    other = {"kind": "sts", "split": "test", "path": "other-{lang}.tsv", "languages": ["en"]}
    main(EvaluateConfig.model_validate(
        settings | {"eval": {"root": str(tmp_path), "sets": {"other": other}}}
    ))  # fmt: skip
    assert "warning: other: not kept out of the training pairs" in capsys.readouterr().err


def test_a_run_of_another_version_is_refused_in_a_line(
    finished_chain: Path, tmp_path: Path
) -> None:
    (run,) = finished_chain.glob("runs/contrastive-*")
    record = json.loads((run / "run.json").read_text())
    del record["checksum"]
    config = record["config"]
    old = shutil.copytree(run, tmp_path / "runs" / run.name)

    def judged(changed: dict[str, Any], **asked: Any) -> dict[str, Any]:
        (old / "run.json").write_text(json.dumps(record | changed))
        values = {"model": str(old), "eval": config["eval"], **asked}
        return judge(EvaluateConfig.model_validate(values), write=False).content

    message = "the teacher in its run.json is of another version; give teacher=<option>"
    with pytest.raises(UserError, match=f"^model={old}: {message}$"):
        judged({"config": config | {"teacher": {"place": "x"}}})
    message = "its run.json, of another version, does not say how many tokens it reads; give"
    for data in ({}, None, {"max_tokens": "many"}):
        with pytest.raises(UserError, match=f"^model={old}: {message} max_tokens=<number>$"):
            judged({"config": config | {"data": data}})
    given = {"max_tokens": 16, "teacher": config["teacher"]}
    found = judged({"config": {"eval": {"sets": []}}}, **given)
    assert found["not_kept_out"] == sorted(config["eval"]["sets"])  # nobody knows
    assert found["scores"] == record["metrics"]["scores"]


@pytest.mark.slow
@pytest.mark.by_hand
def test_teacher_assistant_student_and_export_beside_each_other(
    tiny: Callable[..., TrainConfig],
    encoder_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mlkd.evaluate import main
    from mlkd.recipes.run import run_chain

    config = tiny()
    run_chain(config)
    (run,) = (tmp_path / "out/runs").glob("contrastive-*")
    exported = export(run, tmp_path / "exported", "onnx_int8", max_loss=100.0) / "onnx_int8"
    settings = {
        "model": str(run),
        "teacher": {"path": str(encoder_folder)},
        "eval": config.eval.model_dump(),
        "latency": True,
        "output": str(tmp_path / "evaluation.json"),
    }
    main(EvaluateConfig.model_validate({**settings, "compare": [str(exported)]}))
    measured = json.loads((tmp_path / "evaluation.json").read_text())["race"]
    assert list(measured) == ["teacher", "assistant", "student", "exported/onnx_int8"]
    for numbers in measured.values():
        assert numbers["memory_mib"]["libraries"] > 10
        assert numbers["memory_mib"]["above"] > 0
        assert {"threads_1", "threads_2"} <= set(numbers)
    # Without torch the libraries are a fraction of the size.
    sizes = [measured[n]["memory_mib"]["libraries"] for n in ("student", "exported/onnx_int8")]
    assert sizes[1] < sizes[0] / 2
    assert "exported/onnx_int8" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"compare=.*no encoder"):
        main(EvaluateConfig.model_validate({**settings, "compare": [str(tmp_path)]}))
    twin = shutil.copytree(exported, tmp_path / "other" / "exported" / "onnx_int8")
    with pytest.raises(UserError, match="another folder is called exported/onnx_int8 as well"):
        both = [str(exported), str(twin)]
        main(EvaluateConfig.model_validate({**settings, "compare": both}))
