"""Pair store: splits, duplicates, evaluation sentences, reuse, and what is refused."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose
from omegaconf import OmegaConf

from mlkd.config.compose import composing
from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.data import collect
from mlkd.data.cleaning import below, form_hash, normal_form
from mlkd.data.pairs import prepare_pairs
from mlkd.data.shares import share
from mlkd.data.store import PairGroup, PairStore
from mlkd.output.errors import UserError
from mlkd.storage.files import file_sha256

CONF = Path(__file__).parents[2] / "conf"
LINES = [f"The cat number {i}.\tDie Katze Nummer {i}." for i in range(400)]


def config(root: Path, /, corpora: dict[str, Any] | None = None, **data: Any) -> DataConfig:
    corpora = corpora or {"c": {}}
    default = {"format": "tsv", "path": "{target}.tsv", "targets": ["de"]}
    corpora = {name: {**default, **corpus} for name, corpus in corpora.items()}
    data = {"root": str(root), "dev_fraction": 0.1, **data}
    return DataConfig.model_validate({"corpora": corpora, **data})


def prepare(root: Path, exclude: Collection[str] = (), /, **data: Any) -> PairStore:
    return prepare_pairs(config(root, **data), exclude, root / "cache")


def refused(root: Path, /, **data: Any) -> str:
    with pytest.raises(UserError) as caught:
        prepare(root, **data)
    message = str(caught.value)
    assert "\n" not in message
    return message


def texts(store: PairStore, which: np.ndarray | None = None) -> list[tuple[str, str]]:
    which = np.arange(len(store)) if which is None else which
    return list(
        zip(store.texts(store.source[which]), store.texts(store.translation[which]), strict=True)
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "de.tsv").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return tmp_path


# --- content ----------------------------------------------------------------------------------


def test_a_clean_corpus_comes_out_as_it_went_in(root: Path) -> None:
    store = prepare(root)
    assert texts(store) == [tuple(line.split("\t")) for line in LINES]
    assert store.n_sentences == 800
    assert store.groups == [PairGroup("c", "en", "de")]
    assert store.domains == ["general"]
    assert [store.languages[i] for i in store.language[store.translation]] == ["de"] * 400
    assert [store.languages[i] for i in store.language[store.source]] == ["en"] * 400
    assert store.text(int(store.source[7])) == "The cat number 7."
    assert store.text(store.source[7]) == "The cat number 7."
    assert store.texts(np.array([], int)) == []


def test_arrays_are_memory_mapped_and_typed(root: Path) -> None:
    store = prepare(root)
    kinds = {
        "source": np.uint32, "translation": np.uint32, "group": np.uint16, "domain": np.uint16,
        "dev": np.bool_, "offsets": np.int64, "language": np.uint8,
    }  # fmt: skip
    for name, kind in kinds.items():
        array = getattr(store, name)
        assert isinstance(array, np.memmap)
        assert array.dtype == kind
        assert not array.flags.writeable
    names = {path.name for path in store.folder.iterdir()}
    assert names == {f"{name}.npy" for name in kinds} | {
        "text.bin",
        "meta.json",
        "rejected.tsv",
        "sha256.json",
    }


def test_splits_follow_the_hash_of_the_english_side(root: Path) -> None:
    store = prepare(root)
    expected = [below(form_hash(normal_form(source)), 0.1) for source, _ in texts(store)]
    assert store.dev.tolist() == expected
    assert 20 < len(store.dev_pairs()) < 60
    assert sorted([*store.dev_pairs(), *store.train_pairs()]) == list(range(400))


def test_no_sentence_is_in_two_splits(root: Path) -> None:
    rows = [f"the CAT number {i}\tDie Katze Nummer {i}, bitte" for i in range(400)]
    # The same translation of many English sentences: some of those are held out, others not.
    rows += [f"Greeting {i}.\tHallo {i % 20}" for i in range(200)]
    rows += [f"Hallo, {i}!\tSalut {i}" for i in range(20)]
    (root / "fr.tsv").write_text("\n".join(rows), encoding="utf-8")
    store = prepare(root, corpora={"c": {"targets": ["de", "fr"]}}, dev_fraction=0.3)
    train, dev = (
        {normal_form(side) for pair in texts(store, which) for side in pair}
        for which in (store.train_pairs(), store.dev_pairs())
    )
    assert dev
    assert not train & dev
    lost = sum(count["dropped"].get("sentence of a dev pair", 0) for count in store.counts)
    assert lost > 50
    assert len(store) + lost == 400 + 620


def test_duplicates_are_dropped_and_counted(root: Path) -> None:
    extra = [LINES[3], LINES[3].replace(" ", "  "), "The cat number 3.\tKatze drei"]
    (root / "fr.tsv").write_text("\n".join(LINES[:5] + extra), encoding="utf-8")
    (root / "es.tsv").write_text("\n".join(LINES[:5]), encoding="utf-8")
    store = prepare(root, corpora={"c": {}, "d": {"path": "fr.tsv"}, "e": {"targets": ["es"]}})
    assert store.counts[1]["dropped"] == {"duplicate": 7}
    assert store.counts[1]["train"] + store.counts[1]["dev"] == 1
    # The same texts in another language are other sentences.
    assert store.counts[2]["train"] + store.counts[2]["dev"] == 5
    assert len(store) == 406
    assert store.n_sentences == 800 + 1 + 5
    assert len(np.unique(np.stack([store.source, store.translation]), axis=1).T) == 406


def test_evaluation_sentences_are_removed_on_both_sides(root: Path) -> None:
    store = prepare(root, ["the cat, NUMBER 3", "die katze nummer 5!", "", "...", "unknown"])
    left = [source for source, _ in texts(store)]
    assert len(left) == 398
    assert not {"The cat number 3.", "The cat number 5."} & set(left)
    assert store.counts[0]["dropped"] == {"evaluation sentence": 2}
    assert store.counts[0]["rejected"] == {}
    assert store.n_sentences == 796


def test_fractions_are_nested_and_leave_dev_alone(root: Path) -> None:
    stores = [prepare(root, fraction=fraction) for fraction in (0.1, 0.5, 1.0)]
    train = [set(texts(store, store.train_pairs())) for store in stores]
    assert train[0] < train[1] < train[2]
    assert 15 < len(train[0]) < 60
    dev = [texts(store, store.dev_pairs()) for store in stores]
    assert dev[0] == dev[1] == dev[2]
    outside = stores[0].counts[0]["dropped"]["outside data.fraction"]
    assert len(train[0]) + outside == len(train[2])


def test_a_share_of_a_part_is_a_share_of_it(root: Path) -> None:
    """The two fractions draw apart from each other, each by the text of the source alone."""
    part, whole = prepare(root, fraction=0.5), prepare(root)
    drawn = [set(texts(whole, share(whole, f))) for f in (0.2, 0.5)]
    assert drawn[0] < drawn[1]
    again = set(texts(part, share(part, 0.5)))
    assert again == drawn[1] & set(texts(part, part.train_pairs()))
    kept = len(part.train_pairs())
    assert 0.3 * kept < len(again) < 0.7 * kept
    assert np.array_equal(share(whole, 1.0), whole.train_pairs())


def test_groups_domains_and_languages(root: Path) -> None:
    (root / "fr.tsv").write_text("one\tun\ntwo\tdeux\n")
    corpora = {
        "b": {"targets": ["fr", "de"], "domain": "shop", "max_pairs": 100},
        "demo": {"format": "demo", "path": "", "targets": ["tr"], "max_pairs": 50},
    }
    store = prepare(root, corpora=corpora)
    assert store.groups == [
        PairGroup("b", "en", "fr"), PairGroup("b", "en", "de"), PairGroup("demo", "en", "tr")
    ]  # fmt: skip
    assert store.languages == ["en", "fr", "de", "tr"]
    assert np.bincount(store.group).tolist() == [2, 100, 50]
    assert store.domains[0] == "shop"
    assert len(store.domains) > 2
    assert set(store.domain[store.group == 2].tolist()) == set(range(1, len(store.domains)))
    only = prepare(root, corpora=corpora, languages=["de"])
    assert only.groups == [PairGroup("b", "en", "de")]


def test_max_pairs_counts_clean_pairs(root: Path) -> None:
    (root / "de.tsv").write_text("\n".join(["bad", *LINES]), encoding="utf-8")
    store = prepare(root, corpora={"c": {"max_pairs": 50}})
    assert texts(store) == [tuple(line.split("\t")) for line in LINES[:50]]
    assert store.counts[0]["rows"] == 51


# --- bad rows ---------------------------------------------------------------------------------


def test_bad_rows_are_counted_and_listed(root: Path) -> None:
    bad = [b"no tab", b"\tempty", b"x\t" + b"y" * 300, b"12\t34", b"caf\xe9\tx", b"n\0\tx"]
    bad += ["hé\x07\tb\tc".encode()]
    content = "\n".join(LINES).encode() + b"\r\n" + b"\r\n".join(bad)
    (root / "de.tsv.gz").write_bytes(gzip.compress(content))
    store = prepare(root, corpora={"c": {"path": "de.tsv.gz"}})
    assert store.counts[0] == {
        "corpus": "c", "source_lang": "en", "target_lang": "de", "rows": 407,
        "train": len(store.train_pairs()), "dev": len(store.dev_pairs()), "dropped": {},
        "rejected": {
            "wrong column count": 2, "empty side": 1, "too long": 1, "no letters": 1,
            "not UTF-8": 1, "NUL or lone surrogate": 1,
        },
    }  # fmt: skip
    assert len(store) == 400
    text = (store.folder / "rejected.tsv").read_text(encoding="utf-8")
    listed = list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row["place"] for row in listed] == [str(n) for n in range(401, 408)]
    assert {row["file"] for row in listed} == {f"{root}/de.tsv.gz"}
    assert listed[0]["reason"] == "wrong column count"
    assert [row["excerpt"] for row in listed] == [
        "no tab", r"\tempty", r"x\t" + "y" * 198, r"12\t34", r"caf\\xe9\tx", r"n\x00\tx",
        r"hé\x07\tb\tc",
    ]  # fmt: skip


def test_a_dirty_corpus_stops(root: Path) -> None:
    (root / "fr.tsv").write_text("\n".join([*LINES, *["bad"] * 15, *["\tx"] * 10]))
    corpora = {"c": {}, "d/e": {"targets": ["fr"]}}
    message = refused(root, corpora=corpora)
    place = root / "cache" / "rejected-d_e.tsv"
    assert message == (
        "data.corpora.d/e: 5.9% of 425 rows are bad (wrong column count 15, empty side 10); "
        f"allowed is data.max_rejected=5%; see {place}"
    )
    assert len(place.read_text().splitlines()) == 26
    assert [path.name for path in (root / "cache").iterdir()] == [place.name]
    assert len(prepare(root, corpora=corpora, max_rejected=0.06)) == 800


def test_a_hopeless_corpus_stops_early(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_HOPELESS", 100)
    (root / "de.tsv").write_text("\n".join(["bad"] * 1000 + LINES * 3))
    assert "100.0% of 100 rows are bad" in refused(root, max_rejected=0.9)
    assert len(prepare(root, max_rejected=1.0)) == 400


def test_unfinished_translations_are_not_bad(root: Path) -> None:
    entries = [f'msgid "Text {i}"\nmsgstr "Wort {i}"\n' for i in range(60)]
    entries += [f'msgid "Open {i}"\nmsgstr ""\n' for i in range(60)]
    (root / "de.po").write_text("\n".join(entries))
    store = prepare(root, corpora={"c": {"format": "gettext", "path": "."}})
    assert store.counts[0]["rejected"] == {"untranslated": 60}
    assert len(store) == 60


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"languages": ["de", "fi"]}, "no corpus offers fi; allowed: de"),
        ({"dev_fraction": 1e-9}, "400 training and 0 dev pairs"),
        ({"corpora": {"c": {"max_pairs": 1}}}, "both are needed"),
        ({"corpora": {"c": {"path": "empty.tsv"}}}, "no rows for de in"),
        ({"corpora": {"c": {}, "d": {"targets": ["it"]}}}, "no training pairs are left for it"),
        ({"corpora": {"c": {"targets": ["sv"]}}}, "sv.tsv"),
    ],
)
def test_what_cannot_train_is_refused(root: Path, data: dict[str, Any], words: str) -> None:
    (root / "empty.tsv").write_text("")
    # A copy of the held-out pairs in another language: nothing of it may be trained on.
    held = [line for line in LINES if below(form_hash(normal_form(line.split("\t")[0])), 0.1)]
    (root / "it.tsv").write_text("\n".join(held))
    assert words in refused(root, **data)
    for folder in (root / "cache").glob("**/pairs-*"):  # for a look
        assert len(PairStore.open(folder))


# --- reuse ------------------------------------------------------------------------------------


def test_a_store_is_made_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(root, ["a b"])
    monkeypatch.setattr("mlkd.data.pairs._write", None)
    second = prepare(root, ["A, b!"])
    assert second.folder == first.folder
    assert second.fingerprint == first.fingerprint
    assert len(first.fingerprint) == 64


def test_the_place_of_the_data_does_not_matter(root: Path) -> None:
    first = prepare(root)
    moved = root / "moved"
    moved.mkdir()
    (moved / "german.tsv").write_bytes((root / "de.tsv").read_bytes())
    same = config(moved, {"c": {"path": str(moved / "german.tsv")}}, max_tokens=16)
    late = same.model_copy(update={"mixing": "proportional", "max_dev_pairs": 5})
    for data in (same, late):
        assert prepare_pairs(data, [], root / "cache").folder == first.folder


@pytest.mark.parametrize(
    "data",
    [
        {"max_chars": 100},
        {"dev_fraction": 0.2},
        {"fraction": 0.9},
        {"max_rejected": 0.5},
        {"corpora": {"c": {"domain": "cats"}}},
        {"corpora": {"c": {"max_pairs": 399}}},
        {"corpora": {"c": {"columns": [1, 0]}}},
        {"corpora": {"other": {}}},
    ],
)
def test_settings_change_the_store(root: Path, data: dict[str, Any]) -> None:
    assert prepare(root).folder != prepare(root, **data).folder


def test_content_changes_the_store(root: Path) -> None:
    first, excluded = prepare(root), prepare(root, ["The cat number 1."])
    assert first.folder != excluded.folder
    assert first.fingerprint != excluded.fingerprint
    with (root / "de.tsv").open("a") as file:
        file.write("bad row\n")
    second = prepare(root)
    assert second.folder != first.folder
    assert second.fingerprint == first.fingerprint, "the pairs are the same"


@pytest.mark.parametrize("name", ["text.bin", "source.npy", "meta.json"])
def test_a_damaged_store_is_made_again(
    root: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = prepare(root)
    path, expected = store.folder / name, texts(store)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not a complete pair store"):
        PairStore.open(store.folder)
    with caplog.at_level(logging.WARNING):
        assert texts(prepare(root)) == expected
    (record,) = caplog.records
    assert "made again" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert [path.name for path in (root / "cache").iterdir()] == [store.folder.name]


def test_a_half_written_folder_is_never_taken(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = prepare(root)
    expected, name = texts(finished), finished.folder.name
    shutil.rmtree(finished.folder)
    monkeypatch.setattr("mlkd.data.pairs.compact", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(root)
    assert not list((root / "cache").iterdir())
    monkeypatch.undo()
    # What a killed process leaves behind.
    left = root / "cache" / f".{name}.killed"
    left.mkdir()
    (left / "spool.text").write_text("half")
    (root / "cache" / name).mkdir()
    assert texts(prepare(root)) == expected


def _prepare_in_process(root: str) -> str:
    return prepare(Path(root)).fingerprint


def test_two_processes_make_the_same_store(root: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        prints = pool.map(_prepare_in_process, [str(root)] * 2, chunksize=1)
    assert prints[0] == prints[1]
    assert [path.name[:6] for path in (root / "cache").iterdir()] == ["pairs-"]


def test_the_format_is_written_down(root: Path) -> None:
    meta = json.loads((prepare(root).folder / "meta.json").read_text())
    assert {"format", "fingerprint", "languages", "groups", "domains", "counts"} <= meta.keys()
    assert meta["train"] + meta["dev"] == 400


# --- configurations ---------------------------------------------------------------------------

OPTIONS = sorted(path.stem for path in (CONF / "data").glob("*.yaml") if path.stem != "base")


@pytest.mark.parametrize("option", OPTIONS)
def test_every_data_option_is_valid(option: str) -> None:
    with composing():
        composed = compose(f"data/{option}")["data"]
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    data = DataConfig.model_validate(values)
    assert values.keys() == DataConfig.model_fields.keys()
    assert data.root is None
    first = (CONF / "data" / f"{option}.yaml").read_text().splitlines()[0]
    assert first.startswith("# python -m mlkd.train ")
    assert f"data={option}" in first


def test_preparing_pairs_needs_no_torch() -> None:
    code = (
        "import sys, mlkd.data.pairs, mlkd.data.formats.tables; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_corpus_has_typed_defaults() -> None:
    assert CorpusConfig(format="demo", targets=["de"]).subset is None


def test_a_file_of_several_languages_is_read_once_for_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"en": f"sentence {n}", "de": f"Satz {n}", "fr": f"phrase {n}"} for n in range(200)]
    file = tmp_path / "both.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    read: list[Path] = []

    def spying(path: Path) -> str:
        read.append(path)
        return file_sha256(path)

    monkeypatch.setattr("mlkd.storage.files.file_sha256", spying)
    corpus = {"format": "jsonl", "path": file.name, "targets": ["de", "fr"]}
    corpus["columns"] = ["{source}", "{target}"]
    store = prepare(tmp_path, corpora={"c": corpus})
    assert prepare(tmp_path, corpora={"c": corpus}).fingerprint == store.fingerprint
    assert read.count(file) == 1
    with file.open("a") as changed:
        changed.write("\n" + json.dumps({"en": "one more", "de": "noch einer", "fr": "un autre"}))
    assert prepare(tmp_path, corpora={"c": corpus}).fingerprint != store.fingerprint
    assert read.count(file) == 2
