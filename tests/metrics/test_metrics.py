"""Metrics against hand-computed values, scipy and sentence-transformers."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from rich.console import Console
from scipy.stats import pearsonr, spearmanr
from sentence_transformers.sentence_transformer.evaluation import (
    EmbeddingSimilarityEvaluator,
    TranslationEvaluator,
)
from torch import nn

from mlkd.metrics.bitext import retrieval
from mlkd.metrics.evaluation import Evaluation
from mlkd.metrics.scoring import Scores, score, select_value, share_of
from mlkd.metrics.sets import EvalSet
from mlkd.metrics.similarity import Array, cosines, sts_scores
from mlkd.metrics.size import folder_mib, parameters
from mlkd.metrics.speed import race
from mlkd.metrics.summary import columns
from mlkd.metrics.table import TableRow, row_of, rows_of, rows_to_table, to_markdown
from mlkd.output.errors import UserError
from mlkd.storage.files import write_json
from mlkd.storage.seals import sealed

RNG = np.random.default_rng(3)


def vectors(rows: int, width: int = 16) -> Array:
    return RNG.normal(size=(rows, width)).astype(np.float32)


def stub(known: dict[str, Array]) -> Any:
    """What the evaluators of sentence-transformers need of a model."""

    def encode(texts: Sequence[str], convert_to_numpy: bool = True, **_: Any) -> Any:
        found = np.stack([known[text] for text in texts])
        return found if convert_to_numpy else list(torch.from_numpy(found))

    return SimpleNamespace(encode=encode, similarity_fn_name="cosine", model_card_data=MagicMock())


# --- similarity -------------------------------------------------------------------------------


def test_spearman_by_hand() -> None:
    angle = np.radians([0, 30, 60, 90])
    left = np.tile([1.0, 0.0], (4, 1))
    right = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert cosines(left, right) == pytest.approx(np.cos(angle))
    # Cosines fall; gold ranks 4 3 1 2 give sum d² = 2, so 1 - 6·2 / (4·15) = 0.8.
    result = sts_scores(left, right, np.array([5.0, 4.0, 1.0, 2.0]), bootstrap=0)
    assert result["spearman"] == pytest.approx(80)
    assert (result["low"], result["high"], result["n"]) == (None, None, 4)


def test_sts_equals_scipy_and_sentence_transformers_with_ties() -> None:
    left = vectors(80)
    right = (left + 1.5 * vectors(80)).astype(np.float32)
    left[10:20], right[10:20] = left[0], right[0]
    gold = RNG.integers(0, 6, size=80).astype(np.float64)
    result = sts_scores(left, right, gold, bootstrap=0)
    cosine = cosines(left, right)
    assert result["spearman"] == pytest.approx(100 * spearmanr(cosine, gold).statistic)
    assert result["pearson"] == pytest.approx(100 * pearsonr(cosine, gold).statistic)

    names = [f"l{i}" for i in range(80)], [f"r{i}" for i in range(80)]
    known = dict(zip(names[0] + names[1], [*left, *right], strict=True))
    oracle = EmbeddingSimilarityEvaluator(
        *names, gold.tolist(), similarity_fn_names=["cosine"], write_csv=False
    )(stub(known))
    assert result["spearman"] == pytest.approx(100 * oracle["spearman_cosine"], abs=1e-3)
    assert result["pearson"] == pytest.approx(100 * oracle["pearson_cosine"], abs=1e-3)


def test_interval_equals_a_loop_over_resamples() -> None:
    left, right, gold = vectors(40), vectors(40), RNG.integers(0, 4, size=40).astype(float)
    result = sts_scores(left, right, gold, bootstrap=50, seed=7)
    cosine = cosines(left, right)
    draws = np.random.default_rng(7).integers(40, size=(50, 40))
    loop = [100 * spearmanr(cosine[draw], gold[draw]).statistic for draw in draws]
    assert [result["low"], result["high"]] == pytest.approx(np.percentile(loop, [2.5, 97.5]))
    assert result == sts_scores(left, right, gold, bootstrap=50, seed=7)


def test_interval_covers_the_true_correlation() -> None:
    """Of 60 samples with a known population value, about 95 % of the intervals hold it."""
    rho = 0.7
    truth = 100 * 6 / math.pi * math.asin(rho / 2)
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        gold = rng.normal(size=150)
        other = rho * gold + math.sqrt(1 - rho**2) * rng.normal(size=150)
        # Vectors on a circle whose cosine is a rising function of `other`.
        angle = math.pi / 2 - np.arctan(other)
        right = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        result = sts_scores(np.tile([1.0, 0.0], (150, 1)), right, gold, bootstrap=200)
        hits += bool(result["low"] <= truth <= result["high"])  # type: ignore[operator]
    assert 51 <= hits <= 60


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan, np.inf])
def test_collapsed_encoder_scores_zero(value: float) -> None:
    same = np.full((20, 4), value, dtype=np.float32)
    gold = np.linspace(0, 5, 20)
    result = sts_scores(same, same, gold, bootstrap=20)
    assert [result[key] for key in ("spearman", "pearson", "low", "high")] == [0, 0, 0, 0]


def test_one_broken_vector_does_not_break_the_rest() -> None:
    left, right, gold = vectors(50), vectors(50), np.linspace(0, 5, 50)
    zeroed = left.copy()
    left[3], zeroed[3] = np.nan, 0
    assert sts_scores(left, right, gold, bootstrap=5) == sts_scores(
        zeroed, right, gold, bootstrap=5
    )


def test_equal_sentences_tie_at_one() -> None:
    left = vectors(500, 384)
    assert (cosines(left, left) == 1).all()


# --- bitext -----------------------------------------------------------------------------------


def texts(rows: int, prefix: str) -> list[str]:
    return [f"{prefix}{i}" for i in range(rows)]


def test_retrieval_by_hand() -> None:
    left = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    right = np.array([[1.0, 0.1], [1.0, 0.2], [-1.0, 0.3]])
    # forward: 0 -> 0 right, 1 -> 2 wrong, 2 -> 2 right; backward: 0 -> 0, 1 -> 0 wrong, 2 -> 2.
    result = retrieval(left, right, sentences=(texts(3, "l"), texts(3, "r")))
    assert result["forward"] == pytest.approx(200 / 3)
    assert result["backward"] == pytest.approx(200 / 3)
    right[1] = [1.0, 2.0]
    result = retrieval(left, right, sentences=(texts(3, "l"), texts(3, "r")))
    assert result == {"forward": 100.0, "backward": 100.0, "mean": 100.0, "n": 3}


@pytest.mark.parametrize("chunk", [1, 7, 60, 1024])
def test_retrieval_equals_sentence_transformers(chunk: int) -> None:
    rng = np.random.default_rng(0)
    left = rng.normal(size=(60, 8)).astype(np.float32)
    right = (left + 0.7 * rng.normal(size=(60, 8))).astype(np.float32)
    names = texts(60, "l"), texts(60, "r")
    known = dict(zip(names[0] + names[1], [*left, *right], strict=True))
    oracle = TranslationEvaluator(*names, write_csv=False)(stub(known))
    result = retrieval(left, right, chunk, sentences=names)
    assert 20 < result["forward"] < 100
    assert result["forward"] == pytest.approx(100 * oracle["src2trg_accuracy"])
    assert result["backward"] == pytest.approx(100 * oracle["trg2src_accuracy"])
    assert result["mean"] == pytest.approx(100 * oracle["mean_accuracy"])


@pytest.mark.parametrize("chunk", [1, 1024])
def test_a_repeated_sentence_has_two_right_answers(chunk: int) -> None:
    left = np.eye(4)
    right = np.eye(4)
    right[3] = right[0]
    left[3] = left[0] + 0.01
    result = retrieval(left, right, chunk, sentences=(texts(4, "l"), ["a", "b", "c", "a"]))
    assert result["forward"] == 100
    apart = retrieval(left, right, chunk, sentences=(texts(4, "l"), ["a", "b", "c", "d"]))
    assert apart["forward"] == 75
    # The same query twice, with two translations, of which it finds the first both times.
    query = retrieval(left, right, chunk, sentences=(["x", "y", "z", "x"], ["a", "b", "c", "d"]))
    assert query["forward"] == 100


@pytest.mark.parametrize(("value", "accuracy"), [(1.0, 5.0), (0.0, 0.0), (np.nan, 0.0)])
def test_collapsed_encoder_finds_nothing(value: float, accuracy: float) -> None:
    same = np.full((20, 4), value)
    result = retrieval(same, same, 6, sentences=(texts(20, "l"), texts(20, "r")))
    assert (result["forward"], result["backward"]) == (accuracy, accuracy)


# --- scoring ----------------------------------------------------------------------------------


def sts(name: str, split: Any, pair: str, gold: Sequence[float] = (0, 2, 5)) -> EvalSet:
    a, b = pair.split("-")
    first, second = (tuple(f"{side} {i}" for i in range(len(gold))) for side in (a + "1", b + "2"))
    return EvalSet(name, "sts", split, pair, first, second, np.array(gold, dtype=float))


def bitext(name: str, split: Any, pair: str, rows: int = 4) -> EvalSet:
    first, second = (tuple(f"{lang} {i}" for i in range(rows)) for lang in pair.split("-"))
    return EvalSet(name, "bitext", split, pair, first, second, None)


def counting(width: int = 8) -> tuple[Callable[[Sequence[str]], Array], list[str]]:
    """An encoder of stable random vectors, and the sentences that it has seen."""
    seen: list[str] = []

    def encode(batch: Sequence[str]) -> Array:
        seen.extend(batch)
        rows = [np.random.default_rng(list(text.encode())).normal(size=width) for text in batch]
        return np.stack(rows)

    return encode, seen


SETS = [
    sts("stsb_dev", "dev", "en-en"),
    sts("stsb_dev", "dev", "en-de"),
    sts("stsb_test", "test", "de-de", (1, 2, 4, 5)),
    bitext("val", "dev", "en-de"),
    bitext("held", "test", "fr-en", 5),
]


def test_score_encodes_each_sentence_once_and_is_json() -> None:
    student, seen = counting()
    teacher, taught = counting()
    result = score(student, SETS, bootstrap=10, teacher=teacher)
    assert len(seen) == len(set(seen)) == 3 + 3 + 3 + 4 + 4 + 4 + 4 + 5 + 5 - 4 - 3
    assert sorted(taught) == [f"en {i}" for i in range(4)]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["sets"]) == ["stsb_dev", "stsb_test", "val", "held"]
    assert result["sets"]["stsb_dev"]["kind"] == "sts"
    assert list(result["sets"]["stsb_dev"]["pairs"]) == ["en-en", "en-de"]


def test_means_are_over_pairs_of_their_split_and_kind() -> None:
    result = score(counting()[0], SETS, bootstrap=0)
    dev = {pair: e["spearman"] for pair, e in result["sets"]["stsb_dev"]["pairs"].items()}
    assert result["mean"]["dev"]["sts"] == pytest.approx((dev["en-en"] + dev["en-de"]) / 2)
    assert result["mean"]["dev"]["sts_same"] == dev["en-en"]
    assert result["mean"]["dev"]["sts_cross"] == dev["en-de"]
    assert result["mean"]["dev"]["bitext"] == result["sets"]["val"]["pairs"]["en-de"]["mean"]
    assert result["mean"]["test"]["bitext"] == result["sets"]["held"]["pairs"]["fr-en"]["mean"]
    assert result["mean"]["test"]["sts_cross"] is None


def test_agreement_is_the_cosine_with_the_teachers_english() -> None:
    encode, _ = counting()
    item = bitext("val", "dev", "de-en")
    english, german = encode(item.right), encode(item.left)
    wanted = (1 + cosines(german, english).mean()) / 2
    result = score(encode, [item], bootstrap=0, teacher=encode)
    assert result["agreement"] == pytest.approx(wanted)
    assert score(encode, [item], bootstrap=0)["agreement"] is None
    assert score(encode, [item], bootstrap=0, teacher=counting(5)[0])["agreement"] is None
    test_only = [bitext("held", "test", "en-de")]
    assert score(encode, test_only, bootstrap=0, teacher=encode)["agreement"] is None


def test_encoder_with_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="encoded to shape"):
        score(lambda batch: np.zeros((1, len(batch))), SETS, bootstrap=0)


def test_broken_vectors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    score(lambda batch: np.full((len(batch), 3), np.nan), SETS[:1], bootstrap=0)
    assert "6 of 6 vectors are not finite" in caplog.text


def test_only_dev_selects() -> None:
    scores = score(counting()[0], SETS, bootstrap=0)
    assert select_value(scores) == scores["mean"]["dev"]["sts"]
    scores["sets"]["stsb_test"]["pairs"]["de-de"]["spearman"] = 1e6
    scores["mean"]["dev"]["sts"] = 1e6
    assert select_value(scores) < 1e3
    dev_bitext = score(counting()[0], [SETS[2], SETS[3]], bootstrap=0)
    assert select_value(dev_bitext) == dev_bitext["mean"]["dev"]["bitext"]
    with pytest.raises(UserError, match="split=dev"):
        select_value(score(counting()[0], [SETS[2], SETS[4]], bootstrap=0))


def test_share_of() -> None:
    def scores(*values: float) -> Scores:
        pairs = {f"en-{'abc'[i]}a": {"spearman": value} for i, value in enumerate(values)}
        return {"sets": {"stsb": {"kind": "sts", "split": "test", "pairs": pairs}}}

    assert share_of(scores(80, 60), scores(79.1, 59.5)) == pytest.approx({"share": 99, "loss": 1})
    assert share_of(scores(0), scores(50)) == {"share": None, "loss": None}
    with pytest.raises(ValueError, match="same test sets"):
        share_of(scores(80, 60), scores(80))


def test_scores_that_are_in_a_cache_are_found_again(tmp_path: Path) -> None:
    """The key says what was scored; a change of it would score every encoder of every cache."""
    for name in ("student", "teacher"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name, encoding="utf-8")
    sets = [
        EvalSet("stsb", "sts", "dev", "en-de", ("a", "b"), ("c", "ü"), np.array([0.0, 4.5])),
        EvalSet("held", "bitext", "test", "fr-en", ("a",), ("b",), None),
    ]
    evaluation = Evaluation(
        sets, bootstrap=10, max_tokens=64, teacher=tmp_path / "teacher", accelerator="cpu"
    )
    known = {"scores": {"mean": 81.5}, "mib": 12.5}
    sealed(
        tmp_path / "cache" / "scores-b39fb800d33fe2fe",
        lambda part: write_json(part / "scores.json", known),
    )
    assert evaluation.cached(tmp_path / "student", tmp_path / "cache", "student") == known


def test_scores_of_a_graph_are_those_of_its_bytes_and_its_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher/config.json").write_text("{}", encoding="utf-8")
    evaluation = Evaluation(
        [], bootstrap=0, max_tokens=64, teacher=tmp_path / "teacher", accelerator="cpu"
    )
    graph = tmp_path / "export/onnx/model_q4.onnx"
    graph.parent.mkdir(parents=True)
    made: list[int] = []

    def scores() -> dict[str, Any]:
        def make() -> dict[str, Any]:
            made.append(0)
            return {"made": len(made)}

        return evaluation.cached_graph(graph, tmp_path / "cache", "student q4", make)

    graph.write_bytes(b"weights")
    assert [scores(), scores()] == [{"made": 1}, {"made": 1}]
    graph.write_bytes(b"others")
    assert scores() == {"made": 2}
    (tmp_path / "export/tokenizer.json").write_text("{}", encoding="utf-8")
    assert scores() == {"made": 3}


def test_scores_in_bf16_are_near_and_say_so(encoder_folder: Path, tmp_path: Path) -> None:
    texts = [
        f"{word} {i}" for i, word in enumerate("a red dog runs home after the long day".split())
    ]
    gold = RNG.uniform(0, 5, len(texts))
    sets = [EvalSet("sts", "sts", "dev", "en-en", tuple(texts), tuple(reversed(texts)), gold)]
    found = {}
    for precision in ("fp32", "bf16"):
        evaluation = Evaluation(
            sets,
            bootstrap=0,
            max_tokens=16,
            teacher=encoder_folder,
            accelerator="cpu",
            precision=precision,
        )
        found[precision] = evaluation.cached(encoder_folder, tmp_path, "teacher")
        assert found[precision]["precision"] == precision
    pearson = [one["scores"]["sets"]["sts"]["pairs"]["en-en"]["pearson"] for one in found.values()]
    assert pearson[0] != pearson[1]
    assert pearson[0] == pytest.approx(pearson[1], abs=2)


def test_times_are_kept_for_the_same_encoders(encoder_folder: Path, tmp_path: Path) -> None:
    texts = ("a red dog", "ein roter Hund", "home")
    sets = [EvalSet("held", "bitext", "test", "en-de", texts, texts, None)]
    evaluation = Evaluation(
        sets, bootstrap=0, max_tokens=16, teacher=encoder_folder, accelerator="cpu"
    )
    alone = {"teacher": encoder_folder}
    first = evaluation.cached_speed(alone, tmp_path)
    assert first["teacher"]["sentences_per_s"] > 0
    assert evaluation.cached_speed(alone, tmp_path) == first
    assert evaluation.cached_speed(alone | {"assistant": encoder_folder}, tmp_path).keys() == {
        "teacher",
        "assistant",
    }
    replace(evaluation, max_tokens=8).cached_speed(alone, tmp_path)
    assert len(list(tmp_path.glob("speed-*"))) == 3


def test_columns_hold_scores_and_the_intervals_that_there_are() -> None:
    pairs = {
        "en-de": {"spearman": 80.0, "low": 78.5, "high": 82.0},
        "de-de": {"spearman": 70.0, "low": None, "high": None},
    }
    scores = {"sets": {"stsb": {"kind": "sts", "split": "test", "pairs": pairs}}}
    assert columns({"scores": scores}) == {
        "test_stsb_en-de": 80.0,
        "test_stsb_de-de": 70.0,
        "test_stsb_en-de_low": 78.5,
        "test_stsb_en-de_high": 82.0,
    }
    assert columns({}) == {}


# --- size and speed ---------------------------------------------------------------------------


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(3, 3)
        self.embeddings = nn.ModuleDict(
            {"words": nn.Embedding(10, 2), "up": nn.Linear(2, 3, False)}
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList([layer, layer])})
        self.pooler = nn.Linear(3, 3, bias=False)
        self.pooler.weight = layer.weight
        self.head = nn.Linear(3, 1)


def test_shared_parameters_count_once() -> None:
    model = nn.Sequential(Backbone())
    assert parameters(model) == {"embedding": 26, "encoder": 12, "other": 4, "total": 42}


def test_size_on_disk(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "model.safetensors").write_bytes(bytes(2**20))
    (tmp_path / "1_Pooling" / "config.json").write_bytes(bytes(2**19))
    assert folder_mib(tmp_path) == 1.5
    with pytest.raises(UserError, match="no such folder"):
        folder_mib(tmp_path / "absent")


def test_throughput_is_the_median_of_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only encoders move: 2 s a call, and 10 s for the second timed pass."""
    clock, calls = [0.0], []

    def encode(batch: Sequence[str]) -> None:
        calls.append(len(batch))
        clock[0] += 10.0 if 12 < len(calls) <= 18 else 2.0

    def slow(batch: Sequence[str]) -> None:
        clock[0] += 4.0

    monkeypatch.setattr("mlkd.metrics.speed.perf_counter", lambda: clock[0])
    sentences = ["aa", "b", "cccc", "dd", "e"]
    measured = race({"one": encode, "two": slow}, sentences, batch_size=2, passes=3)
    assert measured["one"]["sentences_per_s"] == pytest.approx(5 / 6)
    assert measured["two"]["sentences_per_s"] == pytest.approx(5 / 12)
    assert calls == [1, 2, 1, 2, 1, 1] * 4 + [1, 1] * 5
    with pytest.raises(ValueError, match="needs sentences"):
        race({"one": encode}, [], batch_size=2)


def test_latency_is_that_of_single_sentences_after_an_untimed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, calls = [0.0], []

    def encode(batch: Sequence[str]) -> None:
        calls.append(list(batch))
        untimed = len(calls) <= 4 or len(calls) % 2 == 1
        clock[0] += 50.0 if untimed else 0.001 * (len(calls) // 2 - 2)

    monkeypatch.setattr("mlkd.metrics.speed.perf_counter", lambda: clock[0])
    result = race({"one": encode}, ["a", "b", "c", "d"], batch_size=4, passes=1)
    assert calls[:4] == [["a"], ["a", "b", "c", "d"]] * 2
    assert calls[4:] == [[x] for x in "aabbccdd"]
    assert result["one"]["latency_ms"] == {"p50": pytest.approx(2.5), "p95": pytest.approx(3.85)}


# --- table ------------------------------------------------------------------------------------


def table_rows(models: int = 4) -> list[TableRow]:
    pairs = ("en-en", "de-de", "en-de", "en-fr", "en-tr")
    sets = [sts(name, name, pair) for name in ("dev", "test") for pair in pairs]
    scores = score(counting()[0], sets, bootstrap=0)
    names = ["assistant", "contrastive-3f2a9c1b", "tiny [e=64]", "a|b"]
    return [
        TableRow(names[i], 22_713_216, 86.65, scores, 99.04, 1234.5, 3.21) for i in range(models)
    ]


def test_table_fits_120_columns() -> None:
    out = Console(file=io.StringIO(), width=120)
    out.print(rows_to_table(table_rows()))
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    for wanted in ("contrastive-3f2a9c1b", "tiny [e=64]", "22.71", "86.7", "99.0", "en-tr", "-"):
        assert wanted in text
    # A score is never broken over two lines: head, 10 pairs, and rules.
    assert len([line for line in text.splitlines() if "en-en" in line]) == 2


def test_markdown_holds_every_number() -> None:
    rows = table_rows()
    lines = to_markdown(rows).splitlines()
    assert len(lines) == (2 + 4) + 1 + (2 + 10)
    assert lines[0].startswith("| model | par. M | MiB | dev STS | dev bitext | test STS |")
    assert "a\\|b" in lines[5]
    value = rows[0].scores["sets"]["test"]["pairs"]["en-tr"]["spearman"]
    assert lines[-1] == f"| test | test | en-tr |{f' {value:.2f} |' * 4}"


def test_models_with_different_sets_share_a_table() -> None:
    first, second = (
        TableRow(name, 1, 1.0, score(counting()[0], [item], bootstrap=0))
        for name, item in (("a", SETS[2]), ("b", SETS[4]))
    )
    text = to_markdown([first, second])
    assert "| test | stsb_test | de-de | " in text
    assert "| test | held | fr-en | - | " in text


def test_rows_of_measured_models() -> None:
    def measured(spearman: float) -> dict[str, Any]:
        sets = {"s": {"kind": "sts", "split": "test", "pairs": {"en-de": {"spearman": spearman}}}}
        mean = {split: {"sts": spearman, "bitext": None} for split in ("dev", "test")}
        scores = {"sets": sets, "mean": mean, "agreement": None}
        return {"scores": scores, "parameters": {"total": 1_500_000}, "mib": 12.5}

    timed = measured(80.0) | {"sentences_per_s": 321.0, "latency_ms": {"p50": 3.25, "p95": 4.0}}
    first, second = rows_of({"assistant": timed, "student": measured(60.0)})
    assert first == TableRow("assistant", 1_500_000, 12.5, timed["scores"], 100.0, 321.0, 3.25)
    assert second == TableRow("student", 1_500_000, 12.5, measured(60.0)["scores"], 75.0)
    assert [row.share for row in rows_of({"teacher": timed, "student": timed})] == [None, None]
    assert row_of("x", timed, 42.0) == TableRow(
        "x", 1_500_000, 12.5, timed["scores"], 42.0, 321.0, 3.25
    )
