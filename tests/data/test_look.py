"""A look at the pairs: numbers worked out by hand, languages that are not what the label says."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command

from mlkd.config.inputs import DataConfig
from mlkd.data.identify import can_tell, other_languages, passes_for
from mlkd.data.look import TSV_HEADER, Look, look_at
from mlkd.data.look_table import row_cells, to_table
from mlkd.data.pairs import prepare_pairs
from mlkd.output.errors import UserError

HELD_OUT = Path(__file__).parents[2] / "mlkd" / "data" / "demo" / "heldout.tsv"
TEXTS: dict[str, list[str]] = {}
with HELD_OUT.open(encoding="utf-8", newline="") as held_out:
    for entry in csv.DictReader(held_out, delimiter="\t", quoting=csv.QUOTE_NONE):
        for language in ("en", "de", "fr", "es", "tr"):
            TEXTS.setdefault(language, []).append(entry[language])


def config(root: Path, *targets: str, **data: Any) -> DataConfig:
    corpus = {"format": "tsv", "path": "{target}.tsv", "targets": targets, "domain": "home"}
    values = {"root": str(root), "dev_fraction": 0.2, "corpora": {"c": corpus}, **data}
    return DataConfig.model_validate(values)


def look(root: Path, *targets: str, show: int = 0, output: Path | None = None, **data: Any) -> Look:
    settings = config(root, *targets, **data)
    return look_at(settings, root / "cache", show=show, output=output)


def write(root: Path, name: str, *sides: list[str]) -> None:
    rows = zip(*sides, strict=True)
    (root / f"{name}.tsv").write_text("\n".join("\t".join(row) for row in rows), encoding="utf-8")


# --- languages --------------------------------------------------------------------------------


@pytest.mark.parametrize("language", list(TEXTS))
def test_text_in_its_language(language: str) -> None:
    judged, others = other_languages(TEXTS[language], language)
    assert judged >= len(TEXTS[language]) - 3
    assert others.total() == 0
    for label in set(TEXTS) - {language}:
        judged, others = other_languages(TEXTS[language], label)
        assert others[language] >= 0.98 * judged


def test_short_sentences_are_judged_together() -> None:
    words = ["Hund", "Katze", "Straße", "Fenster", "schön", "Mädchen", "Brötchen", "Äpfel"] * 10
    judged, others = other_languages(words, "de")
    assert judged > 70
    assert others.total() == 0
    judged, others = other_languages(words, "tr")
    assert others == {"de": judged}
    assert other_languages(["Hund", "12", "!"], "fr") == (0, Counter()), "too little to tell"
    # 45 letters, and 15 that say as much each as three: both are judged alone.
    long = "Der Hund schläft heute den ganzen Tag im grünen Garten."
    assert other_languages([long, "这是一个关于天气的很长的句子吗"], "de") == (2, {"zh": 1})


def test_placeholders_are_no_text() -> None:
    texts = [f"%(objects_name_{i})s {{current_user_name}}" for i in range(10)]
    assert other_languages(texts, "fr") == (0, Counter())


@pytest.mark.parametrize(
    ("found", "code", "same"),
    [
        ("de", "de-AT", True),
        ("no", "nb", True),
        ("nn", "no", True),
        ("zh", "zh-Hant", True),
        ("yue", "zh", True),
        ("arz", "ar", True),
        ("hr", "sr-Latn", True),
        ("bs", "hr", True),
        ("sk", "cs", False),
        ("ca", "es", False),
        ("nl", "de", False),
        ("da", "no", False),
    ],
)
def test_languages_that_pass_for_each_other(found: str, code: str, same: bool) -> None:
    assert passes_for(found, code) == same


def test_languages_that_the_identifier_does_not_know() -> None:
    assert can_tell("pt-BR")
    assert can_tell("zh-Hans")
    assert not can_tell("tlh")
    assert not can_tell("qaa")


# --- what is found ----------------------------------------------------------------------------


def test_numbers_worked_out_by_hand(tmp_path: Path) -> None:
    number = [f"{i:03d}" for i in range(100)]
    sources = [f"ab{n}" for n in number] + ["Same, again!", "Other words here"]
    targets = [f"abcdefg{n}" for n in number] + ["SAME again", "Other words there"]
    write(tmp_path, "de", sources, targets)
    with (tmp_path / "de.tsv").open("a") as file:
        file.write("\nab000\tabcdefg000\nx\t" + "y" * 300 + "\n12\t34\nno tab")
    found = look(tmp_path, "de", max_rejected=0.1)
    (group,) = found.groups
    assert group.count["rows"] == 106
    assert group.sides is not None
    assert [side.chars for side in group.sides] == [(5, 5), (10, 10)]
    assert group.equal == pytest.approx(1 / 102)
    assert row_cells(found, group)[:-1] == [
        "c", "en-de", "106",
        "3: too long 1: data.max_chars=250, no letters 1, wrong column count 1", "0", "1", "0",
        "102", "5 (5) / 10 (10)", "1.0",
    ]  # fmt: skip
    assert to_table(found).row_count == 1


def test_a_language_that_is_not_what_the_label_says(tmp_path: Path) -> None:
    write(tmp_path, "de", TEXTS["en"], TEXTS["fr"])
    third = [TEXTS["tr" if i % 3 == 0 else "es"][i] for i in range(len(TEXTS["es"]))]
    write(tmp_path, "es", TEXTS["en"], third)
    write(tmp_path, "tr", TEXTS["tr"], TEXTS["en"])
    write(tmp_path, "fr", TEXTS["en"], TEXTS["fr"])
    write(tmp_path, "tlh", TEXTS["en"], [f"{text} Qapla'" for text in TEXTS["tr"]])
    found = look(tmp_path, "de", "es", "tr", "fr", "tlh")
    shares = {
        group.count["target_lang"]: [side.otherwise for side in group.sides or ()]
        for group in found.groups
    }
    assert shares["de"] == pytest.approx([0, 1], abs=0.01)
    assert shares["es"] == pytest.approx([0, 1 / 3], abs=0.06)
    assert shares["tr"] == pytest.approx([1, 1], abs=0.01)
    assert shares["fr"] == pytest.approx([0, 0], abs=0.01)
    assert shares["tlh"] == [pytest.approx(0, abs=0.01), None]
    told = [line.split(";")[0] for line in found.warnings]
    assert told[0] == "c en-de: 100% of the de sentences look like another language, mostly fr"
    assert [line.partition(" sentences")[0].split(" of the ")[1] for line in told] == [
        "de", "es", "en", "tr"
    ]  # fmt: skip
    by_target = {group.count["target_lang"]: row_cells(found, group)[-1] for group in found.groups}
    assert by_target["de"] == "en 0.0, de 100.0 (fr)"
    assert by_target["tlh"] == "en 0.0, tlh -"


def test_the_sample_is_drawn_evenly(tmp_path: Path) -> None:
    write(tmp_path, "de", TEXTS["en"], TEXTS["de"])
    write(tmp_path, "fr", TEXTS["en"][:40], TEXTS["fr"][:40])
    pairs = set(zip(TEXTS["en"], TEXTS["de"], strict=True))
    pairs |= set(zip(TEXTS["en"], TEXTS["fr"], strict=True))
    sample = look(tmp_path, "de", "fr", show=7).sample
    assert Counter(pair.target_lang for pair in sample) == {"de": 4, "fr": 3}
    assert len({(pair.source, pair.target) for pair in sample} & pairs) == 7
    assert look(tmp_path, "de", "fr", show=7).sample == sample
    assert look(tmp_path, "de", "fr", show=0).sample == []
    assert len(look(tmp_path, "de", "fr", show=10_000).sample) == len(TEXTS["en"]) + 40


def test_a_group_of_which_nothing_is_left(tmp_path: Path) -> None:
    write(tmp_path, "de", TEXTS["en"], TEXTS["de"])
    (tmp_path / "app.po").write_text('#, fuzzy\nmsgid "Open"\nmsgstr "Auf"\n' * 3)
    tsv = {"format": "tsv", "path": "de.tsv", "targets": ["de"]}
    corpora = {"app": {"format": "gettext", "path": "app.po", "targets": ["de"]}, "c": tsv}
    found = look(tmp_path, "de", show=3, corpora=corpora)
    app, full = found.groups
    assert app.sides is None
    assert full.sides is not None
    assert row_cells(found, app)[2:] == ["3", "0", "fuzzy 3", "0", "0", "0", "-", "-", "-"]
    assert [pair.corpus for pair in found.sample] == ["c"] * 3


def test_too_few_pairs_to_train_are_shown(tmp_path: Path) -> None:
    write(tmp_path, "de", ["A small house", "Rain"], ["Ein kleines Haus", "Regen"])
    found = look(tmp_path, "de", show=5, dev_fraction=1e-9)
    assert found.stops is not None and found.stops.startswith("data: 2 training and 0 dev pairs")
    assert {pair.target for pair in found.sample} == {"Ein kleines Haus", "Regen"}


@pytest.mark.parametrize("name", ["out/pairs.tsv", "pairs.tsv.gz"])
def test_the_cleaned_pairs_are_a_corpus_again(tmp_path: Path, name: str) -> None:
    write(tmp_path, "de", [f"  {text}  " for text in TEXTS["en"]], TEXTS["de"])
    found = look(tmp_path, "de", output=tmp_path / name)
    content = (tmp_path / name).read_bytes()
    rows = (gzip.decompress(content) if name.endswith("gz") else content).decode().split("\n")
    assert rows[0].split("\t") == list(TSV_HEADER)
    assert rows[1].split("\t") == [TEXTS["en"][0], TEXTS["de"][0], "en", "de", "c", "home"]
    assert rows[-1] == ""
    look(tmp_path, "de", output=tmp_path / name)
    assert (tmp_path / name).read_bytes() == content
    again = {"format": "tsv", "path": name, "targets": ["de"], "header": True, "domain": "home"}
    again |= {"columns": ["source", "target"]}
    data = {"root": str(tmp_path), "dev_fraction": 0.2, "corpora": {"c": again}}
    store = prepare_pairs(DataConfig.model_validate(data), [], tmp_path / "cache")
    assert store.fingerprint == found.store.fingerprint
    with pytest.raises(UserError, match="cannot be written"):
        look(tmp_path, "de", output=tmp_path / "de.tsv" / "x")


def test_training_finds_the_pairs_there(tmp_path: Path) -> None:
    write(tmp_path, "de", TEXTS["en"], TEXTS["de"])
    store = prepare_pairs(config(tmp_path, "de"), [TEXTS["en"][3]], tmp_path / "cache")
    found = look_at(config(tmp_path, "de"), tmp_path / "cache", exclude=[TEXTS["en"][3]])
    assert found.store.folder == store.folder
    assert found.groups[0].count["dropped"] == {"evaluation sentence": 1}
    assert np.array_equal(found.store.source, store.source)


# --- the command ------------------------------------------------------------------------------


def test_the_command_shows_and_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "pairs.en-de", TEXTS["en"], TEXTS["fr"])
    words = ("data=tsv", f"data.root={tmp_path}", "data.corpora.pairs.path=pairs.en-de.tsv")
    done = command("mlkd.pairs", *words, "show=2", "output=clean.tsv")
    assert done.returncode == 0, done.stderr
    assert "de 100.0 (fr)" in done.stdout
    assert "look at pairs en-de: 100% of the de sentences look like another" in done.stdout
    assert done.stdout.count("pairs en-de: ") == 3
    number = len(set(zip(TEXTS["en"], TEXTS["fr"], strict=True)))
    assert len((tmp_path / "clean.tsv").read_text().splitlines()) <= 1 + number
    with (tmp_path / "pairs.en-de.tsv").open("a") as file:
        file.write("\nno tab" * 50)
    done = command("mlkd.pairs", *words, "show=0")
    assert done.returncode == 2
    assert "wrong column count 50" in done.stdout
    assert "error: a training would stop here: data.corpora.pairs: " in done.stderr
    done = command("mlkd.pairs", "data=tsv", "data.root=nowhere")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: data.corpora.pairs: no nowhere/pairs.en")


def test_a_look_needs_no_torch() -> None:
    modules = "mlkd.pairs, mlkd.data.look, mlkd.data.look_table, mlkd.metrics.sets"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
