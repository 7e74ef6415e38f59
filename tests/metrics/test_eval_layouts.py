"""Evaluation sets as others lay them out, and sources other than English."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlkd.config.evaluation import EvalConfig, EvalSetConfig
from mlkd.metrics.scoring import score
from mlkd.metrics.sets import EvalSet, load_sets
from mlkd.output.errors import UserError


def load(root: Path, **one: Any) -> list[EvalSet]:
    one = {"kind": "bitext", "split": "dev", **one}
    return load_sets(EvalConfig.model_validate({"root": str(root), "sets": {"s": one}}))


def refused(root: Path, **one: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(root, **one)
    return str(caught.value).replace(f"{root}/", "")


def sides(items: list[EvalSet]) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    return {item.pair: (item.left, item.right) for item in items}


EN, DE, PT = ("Rain.", "A cat."), ("Regen.", "Eine Katze."), ("Chuva.", "Um gato.")


def test_flores_has_a_file_a_language(tmp_path: Path) -> None:
    for name, texts in (("eng_Latn", EN), ("deu_Latn", DE), ("por_Latn", PT)):
        (tmp_path / f"{name}.dev").write_text("\n".join(texts) + "\n")
    layout = {
        "path": "{lang}.dev",
        "columns": [0],
        "codes": {"en": "eng_Latn", "de": "deu_Latn", "pt-BR": "por_Latn"},
    }
    found = load(tmp_path, **layout, languages=["de", "pt_BR"])
    assert sides(found) == {"en-de": (EN, DE), "en-pt-BR": (EN, PT)}
    found = load(tmp_path, **layout, pairs=["de-pt-BR", "pt-BR-en"])
    assert sides(found) == {"de-pt-BR": (DE, PT), "pt-BR-en": (PT, EN)}


def test_tatoeba_has_two_files_a_pair(tmp_path: Path) -> None:
    for language, texts in (("eng", EN), ("deu", DE)):
        (tmp_path / f"tatoeba.deu-eng.{language}").write_text("\n".join(texts))
    codes = {"en": "eng", "de": "deu"}
    for path in ("tatoeba.{b}-{a}.{lang}", "tatoeba.{pair}.{lang}"):
        assert sides(load(tmp_path, path=path, languages=["de"], codes=codes)) == {
            "en-de": (EN, DE)
        }


def test_pairs_in_alphabetical_order(tmp_path: Path) -> None:
    (tmp_path / "x.de-en.tsv").write_text("Rain.\tRegen.\nA cat.\tEine Katze.\n")
    (tmp_path / "x.en-pt.tsv").write_text("Rain.\tChuva.\nA cat.\tUm gato.\n")
    found = load(tmp_path, path="x.{pair}.tsv", languages=["de", "pt"])
    assert sides(found) == {"en-de": (EN, DE), "en-pt": (EN, PT)}


def test_a_file_that_is_no_text_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes("Rain.\tRegen.\n".encode("utf-16"))
    message = refused(tmp_path, path="x.tsv", pairs=["en-de"])
    assert message == "x.tsv: UTF-16 where UTF-8 is read; convert it"


def test_files_of_a_language_zip(tmp_path: Path) -> None:
    (tmp_path / "en").write_text("Rain.\nA cat.\n")
    (tmp_path / "de").write_text("Regen.\n")
    message = refused(tmp_path, path="{lang}", columns=[0], languages=["de"])
    assert message == "de: 1 rows, but en has 2"


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ({"path": "x.{pair}.tsv", "columns": [0]}, "eval.sets.s.columns=[0]: bitext has 2"),
        (
            {"path": "{pair}.{lang}", "columns": [0, 1]},
            "eval.sets.s.columns=[0, 1]: bitext with a file a language has 1",
        ),
        (
            {"path": "{lang}.tsv", "pairs": ["de-fr"], "languages": ["de", "fr"]},
            "eval.sets.s.path='{lang}.tsv': de-fr needs {a} and {b}, or columns=[0] for a file",
        ),
        (
            {"path": "{pair}.{lang}", "kind": "sts", "languages": ["de"]},
            "eval.sets.s.path='{pair}.{lang}': needs {lang}, or {a} and {b}, or {pair}",
        ),
    ],
)
def test_layouts_that_cannot_hold_the_pairs(
    tmp_path: Path, one: dict[str, Any], message: str
) -> None:
    assert refused(tmp_path, **{"languages": ["de"], **one}).startswith(message)


def test_a_source_other_than_english(tmp_path: Path) -> None:
    (tmp_path / "de-fr.tsv").write_text("Regen.\tPluie.\nHund.\tChien.\n")
    bitext = load(tmp_path, path="{a}-{b}.tsv", source="de", languages=["fr"])
    assert [(item.pair, item.source) for item in bitext] == [("de-fr", "de")]
    for language in ("de", "fr"):
        (tmp_path / f"sts.{language}").write_text("a\tb\t1\nc\td\t2\n")
    sts = load(tmp_path, kind="sts", path="sts.{lang}", source="de", languages=["fr", "de"])
    assert [item.pair for item in sts] == ["fr-fr", "de-de", "de-fr"]

    without = load(tmp_path, kind="sts", path="sts.{lang}", languages=["fr", "de"])
    assert [item.pair for item in without] == ["fr-fr", "de-de"], "English is not among them"

    # The teacher sees German alone; French lies at 60 degrees to it.
    seen: list[str] = []

    def teacher(texts: Sequence[str]) -> Any:
        seen.extend(texts)
        return np.array([[1.0, 0.0]] * len(texts))

    def student(texts: Sequence[str]) -> Any:
        french = {"Pluie.", "Chien."}
        return np.array([[0.5, 0.75**0.5] if text in french else [2.0, 0.0] for text in texts])

    scores = score(student, bitext, bootstrap=0, teacher=teacher)
    assert seen == ["Regen.", "Hund."]
    assert scores["agreement"] == pytest.approx((1.0 + 0.5) / 2)


def test_a_pair_of_regions_is_cross_lingual(tmp_path: Path) -> None:
    for language in ("zh-Hans", "zh-Hant"):
        (tmp_path / f"sts.{language}").write_text("a\tb\t1\nc\td\t2\ne\tf\t3\n")
    languages = ["zh-Hans", "zh-Hant"]
    sets = load(tmp_path, kind="sts", path="sts.{lang}", source="zh-Hans", languages=languages)
    assert [item.pair for item in sets] == ["zh-Hans-zh-Hans", "zh-Hant-zh-Hant", "zh-Hans-zh-Hant"]
    values = {"a": 0.0, "b": 0.9, "c": 1.0, "d": 1.5, "e": 2.0, "f": 2.1}
    scores = score(
        lambda texts: np.array([[np.cos(values[t]), np.sin(values[t])] for t in texts]),
        sets,
        bootstrap=0,
    )
    assert scores["mean"]["dev"]["sts_cross"] == pytest.approx(
        scores["sets"]["s"]["pairs"]["zh-Hans-zh-Hant"]["spearman"]
    )
    assert scores["mean"]["dev"]["sts_same"] is not None


def test_a_set_may_be_some_rows_of_a_file(tmp_path: Path) -> None:
    rows = [("news", 1, EN), ("film", 3, DE), ("news", 4, PT), ("film", 0, EN), ("web", 2, DE)]
    lines = [f"{genre}\t2015\t{score}\t{a}\t{b}" for genre, score, (a, b) in rows]
    (tmp_path / "sts.tsv").write_text("genre\tyear\tscore\ta\tb\n" + "\n".join(lines) + "\n")
    layout = {"kind": "sts", "path": "sts.tsv", "header": True, "columns": [3, 4, 2]}
    layout |= {"languages": ["en"]}
    (news,) = load(tmp_path, **layout, where={0: "news", 1: 2015})
    assert (news.left, news.right) == ((EN[0], PT[0]), (EN[1], PT[1]))
    assert news.scores is not None and news.scores.tolist() == [1.0, 4.0]
    assert refused(tmp_path, **layout, where={0: "News"}) == (
        "sts.tsv: no row is as eval.sets.s.where says; in column 0 stands film, news, web"
    )
    assert "5 tab-separated columns, not at least 6" in refused(tmp_path, **layout, where={5: "x"})
    assert "every score of {0: 'web'} is 2" in refused(tmp_path, **layout, where={0: "web"})
    for wrong in ({"where": {3: "Rain."}}, {"where": {0: "news"}, "columns": None}):
        with pytest.raises(ValueError, match="where needs columns"):
            load(tmp_path, **{**layout, **wrong})
    labels = {"kind": "classification", "columns": [3, 2], "labels": ["1", "3", "4", "0"]}
    (film,) = load(tmp_path, **{**layout, **labels}, where={0: "film"})
    assert (film.left, film.domain) == ((DE[0], EN[0]), None)


def test_rows_of_two_files_are_the_same_items(tmp_path: Path) -> None:
    for language, marks in (("en", "nfn"), ("de", "nnf")):
        lines = [f"{language} {n}\t{mark}" for n, mark in enumerate(marks)]
        (tmp_path / f"f.{language}").write_text("\n".join(lines) + "\n")
    layout = {"path": "f.{lang}", "languages": ["de"], "columns": [0]}
    assert refused(tmp_path, **layout, where={1: "n"}) == (
        "f.de: other rows are as eval.sets.s.where says than in f.en, as row 3; "
        "row i must be the same item in every language"
    )
    (tmp_path / "f.de").write_text("de 0\tn\nde 1\tf\nde 2\tn\n")
    (found,) = load(tmp_path, **layout, where={1: "n"})
    assert (found.left, found.right) == (("en 0", "en 2"), ("de 0", "de 2"))


def test_sets_of_whole_files_decide_what_they_did_before_there_were_others() -> None:
    whole = {"kind": "sts", "split": "dev", "format": "demo", "languages": ["en"]}
    assert "where" not in EvalSetConfig.model_validate(whole).deciding()
    part = {"kind": "sts", "split": "dev", "path": "x", "columns": [1, 2, 3], "where": {0: "a"}}
    assert EvalSetConfig.model_validate(part).deciding()["where"] == {0: "a"}
