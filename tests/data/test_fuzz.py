"""Whatever is in a file or a setting: success with counted rejects, or one line."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import polib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose
from hydra.errors import HydraException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlkd.config.compose import composing, validate
from mlkd.config.evaluation import EvalConfig
from mlkd.config.explain import one_line
from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.config.schema import TrainConfig
from mlkd.config.trees import compose_tree
from mlkd.data import rows
from mlkd.data.pairs import prepare_pairs
from mlkd.data.readers import read
from mlkd.data.rows import Reject, Row
from mlkd.data.sources import count_rows, source_files
from mlkd.metrics import set_files
from mlkd.metrics.sets import load_sets
from mlkd.output.errors import UserError
from mlkd.runs.record import Run
from mlkd.training.checkpoint import check_checkpoint
from mlkd.training.curves import Curves

fuzz = settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
NASTY = [
    b"", b"\n", b"\r\n", b"\r", b"\t", b"\t\t\t", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80", b"\x1f\x8b", b"PK\x03\x04", b"\x80\x04.",
    "\u202edrawkcab\u202c".encode(), "\u200f\u200b\u2028\x85".encode(), "\ufeff".encode(),
    b'"', b"'", b"\\", b"{", b"[", b"}" * 40, b"[" * 5000, b"NaN", b"nan", b"-inf", b"1e999", b"-1",
    b"null", b"x" * 3000, b"5.0", b'{"en": "a", "de": 3}', b'{"en": "a\\ud800", "de": "b"}',
    b'{"en": "a", "de": "b"}', b"A dog.\tEin Hund.\t3", b'msgid "a"\nmsgstr "b"\n',
    b"#~ msgid", b'"Content-Type: text/plain; charset=nonsense\\n"', b'msgstr[99999999999]',
    b'"Content-Type: text/plain; charset=zlib_codec\\n"',
]  # fmt: skip
JUNK = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(st.sampled_from(NASTY), st.binary(max_size=12)), max_size=12).map(b"".join),
)


def mutated(valid: bytes) -> st.SearchStrategy[bytes]:
    """A valid file that was cut, overwritten or extended somewhere."""

    def change(where: float, length: float, junk: bytes) -> bytes:
        start = int(where * len(valid))
        return valid[:start] + junk + valid[start + int(length * (len(valid) - start)) :]

    short = st.sampled_from([0.0, 0.001, 0.01, 0.1, 1.0])
    return st.builds(change, st.floats(0, 1), short, st.one_of(JUNK, st.binary(max_size=4)))


def parquet() -> bytes:
    file = io.BytesIO()
    table = pa.table({"en": ["a dog", None, "rain"] * 9, "de": ["ein Hund", "x", "Regen"] * 9})
    pq.write_table(table, file)
    return file.getvalue()


def catalogue() -> polib.POFile:
    po = polib.POFile()
    po.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    po.append(polib.POEntry(msgid="a dog", msgstr="ein Hund"))
    forms = {0: "Baum", 1: "Bäume"}
    po.append(polib.POEntry(msgid="tree", msgid_plural="trees", msgstr_plural=forms))
    return po


def moses() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.de-en.de", "ein Hund\nRegen\n")
        archive.writestr("x.de-en.en", "a dog\nrain\n")
    return file.getvalue()


TMX = (
    b'<tmx version="1.4"><body><tu><tuv xml:lang="en"><seg>a <ph>x</ph>dog</seg></tuv>'
    b'<tuv xml:lang="de"><seg>ein Hund</seg></tuv></tu></body></tmx>'
)
XLIFF = (
    b'<xliff version="1.2"><file source-language="en" target-language="de"><body><trans-unit>'
    b'<source>a dog</source><target state="final">ein <g>Hund</g></target></trans-unit></body>'
    b"</file></xliff>"
)
QT = (
    b'<TS language="de"><context><message numerus="yes"><source>%n dogs</source><translation>'
    b"<numerusform>%n Hund</numerusform><numerusform>%n Hunde</numerusform></translation>"
    b"</message></context></TS>"
)
XCSTRINGS = (
    b'{"sourceLanguage": "en", "strings": {"a dog": {"localizations": {"de": {"stringUnit": '
    b'{"state": "translated", "value": "ein Hund"}}}}}}'
)
ANDROID = b'<resources><string name="x">a <b>dog</b></string></resources>'
TSV = b"A dog.\tEin Hund.\nRain\tRegen\n"
JSONL = b'{"en": "a dog", "de": "ein Hund"}\n{"en": "rain", "de": "Regen"}\n'
NAMED = {"columns": ["en", "de"]}
JSON = {"format": "json", **NAMED}
FORMATS: list[tuple[str, bytes, dict[str, Any]]] = [
    ("x.tsv", TSV, {"format": "tsv"}),
    ("x.tsv", b"en\tde\n" + TSV, {"format": "tsv", "header": True, **NAMED}),
    ("x.tsv.gz", gzip.compress(TSV), {"format": "tsv"}),
    ("x.txt", TSV, {"format": "aligned", "columns": [0], "target_path": "x.txt"}),
    ("x.jsonl", JSONL, {"format": "jsonl", **NAMED}),
    ("x.po", str(catalogue()).encode(), {"format": "gettext"}),
    ("x.mo", catalogue().to_binary(), {"format": "gettext"}),
    ("x.parquet", parquet(), {"format": "parquet", **NAMED}),
    ("x.csv", b'"a ""dog""",ein Hund\nrain,Regen\n', {"format": "csv"}),
    ("x.txt", b"a dog\nrain\n", {"format": "text"}),
    ("x.json.xz", lzma.compress(b"[" + JSONL.replace(b"}\n{", b"},{") + b"]"), JSON),
    ("x.json", b"[" + JSONL.replace(b"}\n{", b"},{") + b"]", JSON),
    ("x.zip", moses(), {"format": "moses"}),
    ("x.tmx", TMX, {"format": "tmx"}),
    ("x.tmx.bz2", bz2.compress(TMX), {"format": "tmx"}),
    ("x.xlf", XLIFF, {"format": "xliff"}),
    ("x.ts", QT, {"format": "qt"}),
    ("x.xcstrings", XCSTRINGS, {"format": "xcstrings"}),
]
KEYED: list[tuple[str, bytes]] = [
    ("android", ANDROID),
    ("properties", b"x = a \\u0064og\n"),
    ("strings", b'"x" = "a dog";\n'),
    ("fluent", b"x = a dog\n    .y = { $z }\n"),
]


def one_line_or(run: Callable[[], Any]) -> Any:
    """The result, or None where it was refused in one line."""
    try:
        return run()
    except UserError as error:
        message = str(error)
        assert message
        assert len(message.splitlines()) == 1, message
        return None


@pytest.mark.parametrize(("name", "valid", "corpus"), FORMATS, ids=[str(f[0]) for f in FORMATS])
def test_every_corpus_reader(name: str, valid: bytes, corpus: dict[str, Any]) -> None:
    config = CorpusConfig.model_validate({"targets": ["de"], "path": name, **corpus})

    def found(content: bytes) -> list[Row | Reject] | None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, name).write_bytes(content)
            files = source_files("c", config, "de", folder)

            def items() -> list[Row | Reject]:
                count_rows(config, files)
                return list(read("c", config, "de", files))

            result: list[Row | Reject] | None = one_line_or(items)
            return result

    good = found(valid)
    assert good
    assert any(isinstance(item, Row) for item in good)

    @fuzz
    @given(st.one_of(JUNK, mutated(valid), JUNK.map(gzip.compress)))
    def check(content: bytes) -> None:
        for item in found(content) or []:
            assert isinstance(item, Row | Reject)
            if isinstance(item, Row):
                (item.source + item.target).encode()  # no lone surrogates
                assert "\0" not in item.source + item.target

    check()


@pytest.mark.parametrize(("kind", "valid"), KEYED)
def test_every_reader_of_two_files(kind: str, valid: bytes, tmp_path: Path) -> None:
    config = CorpusConfig.model_validate(
        {"format": kind, "targets": ["de"], "path": "x.en", "target_path": "x.de"}
    )
    paths = [tmp_path / "x.en", tmp_path / "x.de"]

    def found(one: bytes, two: bytes) -> list[Row | Reject] | None:
        for path, content in zip(paths, (one, two), strict=True):
            path.write_bytes(content)
        result: list[Row | Reject] | None = one_line_or(
            lambda: list(read("c", config, "de", paths))
        )
        return result

    assert found(valid, valid.replace(b"dog", b"Hund").replace(b"og\n", b"achs\n"))

    @fuzz
    @given(st.one_of(JUNK, mutated(valid)), st.booleans())
    def check(content: bytes, swapped: bool) -> None:
        for item in found(*((content, valid) if swapped else (valid, content))) or []:
            assert isinstance(item, Row | Reject)
            if isinstance(item, Row):
                (item.source + item.target).encode()  # no lone surrogates
                assert "\0" not in item.source + item.target

    check()


def test_corpora_become_a_store_with_counted_rejects_or_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = b"".join(b"a red dog %d\tein roter Hund %d\n" % (i, i) for i in range(60))

    @fuzz
    @given(JUNK, st.floats(0, 1))
    def check(junk: bytes, max_rejected: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "x.tsv").write_bytes(good + b"\n" + junk + b"\n" + good)
            corpus = CorpusConfig(format="tsv", path="x.tsv", targets=["de"])
            config = DataConfig(
                root=folder, corpora={"c": corpus}, dev_fraction=0.3, max_rejected=max_rejected
            )
            store = one_line_or(lambda: prepare_pairs(config, set(), Path(folder, "cache")))
            if store is not None:
                (counts,) = store.counts
                kept = counts["train"] + counts["dev"]
                lost = sum(counts["rejected"].values()) + sum(counts["dropped"].values())
                assert counts["rows"] == kept + lost

    check()


@pytest.mark.parametrize("name", ["x.tsv", "x.tsv.gz"])
def test_evaluation_sets(name: str) -> None:
    valid = b"A cat.\tA dog.\t1.0\nRain.\tIt rains.\t5\n"
    one = {"kind": "sts", "split": "dev", "path": name, "pairs": ["en-en"]}

    def load(content: bytes) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, name).write_bytes(content)
            config = EvalConfig.model_validate({"root": folder, "sets": {"s": one}})
            return one_line_or(lambda: load_sets(config))

    packed = gzip.compress(valid) if name.endswith("gz") else valid
    assert load(packed)

    @fuzz
    @given(st.one_of(JUNK, mutated(packed), mutated(valid).map(gzip.compress)))
    def check(content: bytes) -> None:
        for item in load(content) or []:  # EvalSet itself refuses scores that are not finite
            assert 0 <= item.scores.min() <= item.scores.max() <= 5

    check()
    for score in ("nan", "inf", "-0.1", "5.1", "1,0", ""):
        assert load(f"a\tb\t{score}\nc\td\t1\n".encode()) is None


@pytest.mark.parametrize("byte", [b"\0", b"\n"])
def test_gzip_bombs_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, byte: bytes
) -> None:
    monkeypatch.setattr(rows, "MAX_SKIPPED", 4 << 20)
    monkeypatch.setattr(set_files, "_MOST", 4 << 20)
    path = tmp_path / "bomb.tsv.gz"
    path.write_bytes(gzip.compress(byte * ((64 << 20) // len(byte)), 1))
    one = {"kind": "bitext", "split": "test", "path": path.name, "pairs": ["en-de"]}
    config = EvalConfig.model_validate({"root": str(tmp_path), "sets": {"s": one}})
    with pytest.raises(UserError, match=r"bomb\.tsv\.gz:1: "):
        load_sets(config)
    corpus = CorpusConfig(format="tsv", path=path.name, targets=["de"])
    data = DataConfig(root=str(tmp_path), corpora={"c": corpus})
    reason = {b"\0": "no text", b"\n": "are bad"}[byte]
    with pytest.raises(UserError, match=reason):
        prepare_pairs(data, set(), tmp_path / "cache")


def test_saved_datasets(tmp_path: Path) -> None:
    good = tmp_path / "good"
    datasets.Dataset.from_dict({"en": ["a dog"], "de": ["ein Hund"]}).save_to_disk(str(good))
    config = CorpusConfig.model_validate(
        {"targets": ["de"], "path": "d", "format": "dataset", **NAMED}
    )

    def found(name: str, content: bytes) -> list[Row | Reject] | None:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "d")
            place.mkdir()
            for file in good.iterdir():
                (place / file.name).write_bytes(file.read_bytes())
            (place / name).write_bytes(content)

            def items() -> list[Row | Reject]:
                return list(read("c", config, "de", source_files("c", config, "de", folder)))

            result: list[Row | Reject] | None = one_line_or(items)
            return result

    files = {file.name: file.read_bytes() for file in good.iterdir()}
    for name, valid in files.items():
        assert found(name, valid)

        @settings(fuzz, max_examples=30)
        @given(st.just(name), st.one_of(JUNK, mutated(valid)))
        def check(name: str, content: bytes) -> None:
            for item in found(name, content) or []:
                assert isinstance(item, Row | Reject)

        check()
    state = json.loads(files["state.json"])
    for outside in (f"../{good.name}/data-00000-of-00001.arrow", str(good / "data.arrow")):
        state["_data_files"] = [{"filename": outside}]
        with pytest.raises(UserError, match="leaves the folder"):
            (tmp_path / "d").mkdir(exist_ok=True)
            (tmp_path / "d/state.json").write_text(json.dumps(state))
            (tmp_path / "d/dataset_info.json").write_bytes(files["dataset_info.json"])
            files_of = source_files("c", config, "de", str(tmp_path))
            list(read("c", config, "de", files_of))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["nan", "inf", "../..", "a" * 5000, "\0", "\ud800", "\u202e", -1, 0, 1 << 70,
                     [], {}, [None], {"a": {"b": 1}}, "${oc.env:HOME}", "${nothing}", "???"]),
)  # fmt: skip


def leaves(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(tree, dict):
        return [path]
    return [path, *(leaf for key in tree for leaf in leaves(tree[key], (*path, key)))]


def test_every_value_of_the_configuration() -> None:
    with composing():
        tree: Any = OmegaConf.to_container(compose("train"), resolve=True)
    places = [place for place in leaves(tree) if place]

    @settings(fuzz, max_examples=50)
    @given(st.sampled_from(places), VALUES, st.sampled_from(["", "x", "\n", "é"]))
    def check(place: tuple[str, ...], value: Any, more: str) -> None:
        values = json.loads(json.dumps(tree))
        inner = values
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1] + more] = value

        def validated() -> TrainConfig:
            try:
                return validate(OmegaConf.create(values), TrainConfig)
            except OmegaConfBaseException as error:
                raise UserError(one_line(error, TrainConfig)) from None

        one_line_or(validated)

    check()


def test_every_override() -> None:
    keys = ["seed", "student.layers", "stage", "data", "+x", "~seed", "++seed", "teacher", "", "="]
    words = ["=", "1", "nan", "[", "{a: ", "'", "\\", "${", "}", "${x}", ",", "?", "é", "\n", "\0"]
    text = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(words)).map("".join))

    @settings(fuzz, max_examples=30)
    @given(st.sampled_from(keys), text)
    def check(key: str, value: str) -> None:
        def composed() -> TrainConfig:
            try:
                with composing():
                    return validate(compose_tree("train", [f"{key}={value}"]), TrainConfig)
            except (HydraException, OmegaConfBaseException) as error:
                raise UserError(one_line(error, TrainConfig)) from None

        one_line_or(composed)

    check()


OUTPUTS = {"student": {"content": "0", "files": {}}}
RECORD = {"id": "", "status": "finished", "identity": {"seed": 0}, "outputs": OUTPUTS}


def test_run_records() -> None:
    @settings(fuzz, max_examples=50)
    @given(
        st.one_of(
            JUNK,
            st.tuples(st.sampled_from([*RECORD, "finished", "inputs"]), VALUES).map(
                lambda x: json.dumps(RECORD | {x[0]: x[1]}).encode()
            ),
        )
    )
    def check(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder), "assistant", "sentence", {"seed": 0})
            run.student.mkdir(parents=True)
            run.file.write_bytes(content.replace(b'"id": ""', f'"id": "{run.id}"'.encode()))
            state, reason = run.state({})
            assert state != "reuse"
            assert len(reason.splitlines()) == 1

    check()


def test_checkpoints() -> None:
    file = io.BytesIO()
    torch.save({"callbacks": {"Checkpoint": {"run": "x"}}, "w": torch.ones(9)}, file)

    @fuzz
    @given(st.one_of(JUNK, mutated(file.getvalue())))
    def check(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "last.ckpt")
            path.write_bytes(content)
            one_line_or(lambda: check_checkpoint(path, "x"))

    check()


def test_curves() -> None:
    @fuzz
    @given(st.one_of(JUNK, mutated(b"step,dev/loss\n1,0.5\n2,0.4\n")), st.integers(0, 3))
    def check(content: bytes, step: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "metrics.csv")
            path.write_bytes(content)
            curves = Curves(path)
            curves.cut(step)
            curves.log_metrics({"dev/loss": 0.1}, step)
            curves.write()
            assert path.read_text(encoding="utf-8").splitlines()[-1].startswith(str(step))

    check()
