"""The benchmark on a tiny model: a fair contest, and numbers that can be read back."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ENGLISH, GERMAN, Command
from hydra import compose

from mlkd.config.bench import BenchmarkConfig
from mlkd.config.compose import composing, validate
from mlkd.config.schema import TrainConfig
from mlkd.metrics.sets import load_sets


@pytest.fixture
def config(tiny: Callable[..., TrainConfig], corpus: Path, tmp_path: Path) -> BenchmarkConfig:
    with gzip.open(corpus / "pairs.en-de.tsv.gz", "at", encoding="utf-8") as file:
        file.writelines(  # second translations: a batch holds English sentences twice
            f"{e} {i}\t{g} {i} {i}\n"
            for i in range(50)
            for e, g in zip(ENGLISH, GERMAN, strict=True)
        )
    settings = {
        "cases": ["bottleneck", "targets", "pairs", "profile"],
        "steps": 5,
        "batch_size": 32,
        "turns": 1,
        "clock": "wall",
        "rows": 40_000,
        "synthetic": [200],
        "start_pairs": 2000,
        "sentences": 40,
        "output": str(tmp_path / "numbers.json"),
    }
    train = tiny(stage="assistant")
    return BenchmarkConfig.model_validate(train.model_dump() | {"benchmark": settings})


def test_a_case_has_the_sets_of_its_languages() -> None:
    from mlkd.bench.training import with_languages

    with composing():
        config = validate(compose("benchmark"), BenchmarkConfig)
    german = with_languages(config, 1, "de")
    assert german.data.languages == ["de"]
    assert {item.pair for item in load_sets(german.eval)} == {"en-en", "de-de", "en-de"}
    assert "fr-fr" in {item.pair for item in load_sets(config.eval)}
    some = next(e for e in config.eval.sets.values() if e.kind == "sts")
    french = some.model_copy(update={"languages": ["en", "fr"], "pairs": ["fr-fr", "en-fr"]})
    sets = config.eval.sets | {"unseen": french}
    config = config.model_copy(update={"eval": config.eval.model_copy(update={"sets": sets})})
    assert "unseen" not in with_languages(config, 1, "de").eval.sets


def test_on_equal_batches_the_losses_are_equal(config: BenchmarkConfig) -> None:
    from mlkd.bench.peer import peer_data, run_peer
    from mlkd.bench.stage import Lesson, run_stage
    from mlkd.bench.training import open_for_training, teacher_vectors
    from mlkd.encoders.backbone import backbone_of
    from mlkd.machine.hardware import choose_kernels
    from mlkd.stages import stage_of

    longer = config.model_copy(
        update={"benchmark": config.benchmark.model_copy(update={"steps": 6})}
    )
    chain = open_for_training(longer)
    lesson = Lesson(chain.config, chain, chain.given["base"], "wall")
    ours = run_stage(lesson, "fp32")
    pairs = ours.pairs.ravel()
    assert ours.pairs.shape == (6, 32)
    settings = chain.config.stages["assistant"]

    def optimizer(model):  # type: ignore[no-untyped-def]
        stage = stage_of(settings)(model, settings, 6)
        choose_kernels(backbone_of(model), "fp32", torch.device("cpu"))  # the peer pads
        made = stage.configure_optimizers()
        return made["optimizer"], made["lr_scheduler"]["scheduler"]

    peer = run_peer(
        lesson,
        peer_data(lesson, pairs, teacher_vectors(lesson, pairs)),
        "fp32",
        ordered=True,
        optimizer=optimizer,
    )
    assert ours.losses == pytest.approx(peer.losses, rel=1e-4)
    assert min(ours.losses) > 0
    assert len(set(ours.losses)) == 6
    assert ours.turn.sentences == peer.turn.sentences == 384
    assert ours.turn.tokens < peer.turn.tokens  # each distinct sentence once


@pytest.mark.slow
@pytest.mark.by_hand
def test_numbers_of_every_case_are_written(
    config: BenchmarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.bench import machine, measure_cases, save

    monkeypatch.setattr(machine, "_SECONDS", 0.01)
    monkeypatch.setattr(machine, "_SHAPES", ((256, 384, 256),))
    values = config.model_dump()
    values["benchmark"]["cases"].append("minilm")
    config = BenchmarkConfig.model_validate(values)
    for name, lines in measure_cases(config):
        save(config, name, lines)
    numbers = json.loads(Path(config.benchmark.output).read_text())
    assert set(numbers) == set(config.benchmark.cases)
    for case in numbers.values():
        assert case["hardware"]
        assert case["environment"]["torch"]
    for name in ("bottleneck", "minilm"):
        lines = numbers[name]["lines"]
        assert lines[0]["ratio"] == 1
        ours = [line for line in lines if line["name"].startswith("mlkd")]
        assert ours
        for line in ours:
            assert line["pairs_per_s"] / lines[0]["pairs_per_s"] == pytest.approx(line["ratio"])
            assert line["sentences_per_s"] == pytest.approx(2 * line["pairs_per_s"])
            assert 0 <= line["padding"] < 1
            assert 0 < line["between"] < 1
            assert line["matrix_share"] == pytest.approx(
                line["gflops"] / line["matrix_gflops"], rel=0.01
            )
            assert line["peak_mib"] > 50
    profiled = {line["name"]: line["share"] for line in numbers["profile"]["lines"]}
    assert profiled["fp32: matrix products"] > 0
    assert profiled["fp32: optimiser"] > 0
    fp32 = [share for name, share in profiled.items() if name.startswith("fp32: ")]
    assert sum(fp32) == pytest.approx(1)
    (synthetic,) = numbers["pairs"]["lines"]
    assert synthetic["pairs_per_s"] == pytest.approx(200 / synthetic["seconds"])
    assert 0 < synthetic["anonymous_mib"] < synthetic["peak_mib"]


@pytest.mark.slow
@pytest.mark.by_hand
def test_start_up_is_timed_from_cold_and_warm_caches(
    config: BenchmarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.bench import start

    caches: list[dict[Path, int]] = []

    def train(name: str, command: list[str], **how: Any) -> Any:
        line = original(name, command, **how)
        (output,) = (Path(o.split("=")[1]) for o in command if o.startswith("output_dir="))
        found = (output / "cache").glob("*")
        kinds = ("pairs-", "tokens-", "assistant-", "scores-")
        kept = [folder for folder in found if folder.name.startswith(kinds)]
        caches.append(
            {p: p.stat().st_mtime_ns for f in kept for p in f.rglob("[!.]*") if p.is_file()}
        )
        return line

    original = start.run_training
    monkeypatch.setattr(start, "run_training", train)
    cold, warm = start.measure(config)
    assert cold["first_step"] > 1 and warm["first_step"] > 1
    assert "seconds" not in warm
    assert len(caches[0]) >= 4
    assert caches[1] == caches[0]


def test_synthetic_pairs_repeat_english_sentences(tmp_path: Path) -> None:
    from mlkd.bench.pairs import write_pairs

    write_pairs(tmp_path / "pairs.tsv", 100)
    rows = [line.split("\t") for line in (tmp_path / "pairs.tsv").read_text().splitlines()]
    assert len(rows) == 100
    assert len({row[0] for row in rows}) == 91
    assert np.mean([len(row[1].split()) for row in rows]) == pytest.approx(12, abs=1)


def test_a_size_is_not_searched_for(command: Command) -> None:
    done = command("mlkd.benchmark", "budget_mib=5")
    assert done.returncode == 2
    assert "budget_mib: mlkd.train searches; give the student that it finds" in done.stderr


@pytest.mark.parametrize(
    ("case", "unread"),
    [
        ("pairs", "rows=50000"),
        ("chain", "synthetic=[5]"),
        ("pairs", "start_pairs=7"),
        ("start", "sentences=8"),
        ("targets", "steps=2"),
        ("targets", "batch_size=2"),
        ("chain", "turns=2"),
        ("busy", "clock=cpu"),
    ],
)
def test_settings_of_other_cases_are_refused(command: Command, case: str, unread: str) -> None:
    done = command("mlkd.benchmark", f"benchmark.cases=[{case}]", f"benchmark.{unread}")
    assert done.returncode == 2
    key = unread.partition("=")[0]
    assert f"benchmark.{key}: not read, benchmark.cases has none of " in done.stderr


CONTEST = {"steps", "batch_size", "turns", "clock"}
READ = {
    "minilm": CONTEST,
    "multilingual": CONTEST,
    "vocabulary": CONTEST | {"rows"},
    "bottleneck": CONTEST | {"rows"},
    "targets": {"turns", "clock", "sentences"},
    "busy": {"turns", "sentences"},
    "chain": set(),
    "pairs": {"synthetic", "clock"},
    "start": {"start_pairs"},
    "profile": {"steps", "batch_size"},
}


@pytest.mark.parametrize(("case", "read"), READ.items())
def test_each_case_reads_its_settings(case: str, read: set[str], config: BenchmarkConfig) -> None:
    cases = config.benchmark.model_copy(update={"cases": [case]})
    keys = set(type(cases).model_fields)
    refused = {reason.partition(":")[0] for reason in cases.unread(keys)}
    assert keys - refused == read | {"cases", "output"}
    assert bool([*cases.unread(["synthetic.0"])]) == ("synthetic" not in read)


def test_without_the_extra_it_is_refused_in_one_line() -> None:
    code = (
        "import importlib.util as u; real = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'accelerate' else real(name, *a);"
        "import runpy; runpy.run_module('mlkd.benchmark', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert ".[benchmark]" in done.stderr
