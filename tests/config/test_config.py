"""Composing configurations: what mlkd changes about Hydra leaves its results alone."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, configure
from hydra.core.config_store import ConfigStore
from pydantic import ValidationError

from mlkd.config.backbone import encoder_folder
from mlkd.config.bench import BaselinesConfig, BenchmarkConfig
from mlkd.config.commands import (
    EvaluateConfig,
    ExportConfig,
    PairsConfig,
    RunsConfig,
)
from mlkd.config.compose import composing, configured
from mlkd.config.evaluation import EvalSetConfig
from mlkd.config.explain import _unknown
from mlkd.config.inputs import CorpusConfig, EncoderConfig
from mlkd.config.paths import expanded, user_path
from mlkd.config.schema import TrainConfig
from mlkd.config.section import Section
from mlkd.machine.hardware import resolve_precision
from mlkd.output.errors import UserError


def test_hydras_store_is_shared_while_composing_and_stays_as_it_is() -> None:
    store = ConfigStore.instance()
    with composing(), composing():
        assert copy.deepcopy(store) is store
    assert copy.deepcopy(store) is not store
    first = configure("seed=3", "hydra/launcher=slurm")  # loads the plugins, which fill the store
    before = repr(store.repo)
    assert "'launcher'" in before
    configure("seed=4", "student=minilm_tiny")
    assert repr(store.repo) == before
    assert configure("seed=3", "hydra/launcher=slurm") == first


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("stages.contrastive.batchsize", "stages.contrastive.batch_size"),
        ("stages.contrastive.loss.mcl.weights", "stages.contrastive.loss.mcl.weight"),
        ("data.corpora.mine.colums", "data.corpora.mine.columns"),
        ("student.layer", "student.layers"),
    ],
)
def test_a_mistyped_key_is_answered_with_a_key_that_there_is(key: str, meant: str) -> None:
    assert _unknown(key, TrainConfig, None).startswith(f"{key}: no such key; did you mean {meant}")


def test_a_home_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    shown = "~nobody-is-called-so/x: there is no such user; a name with a ~ is written ./~…"
    for asked in ("output_dir='~nobody-is-called-so/x'", "teacher.path='~nobody-is-called-so/x'"):
        with pytest.raises(UserError, match=re.escape(shown)):
            configure(*(["teacher=folder"] if "teacher" in asked else []), asked)
    assert user_path("~/x") == Path.home() / "x"
    assert (str(user_path("./~x")), expanded("a/")) == ("~x", "a/")


def test_a_file_to_write_is_no_folder(tmp_path: Path) -> None:
    message = f"output: {tmp_path} is a folder; give a file"
    for name, schema, words in (
        ("pairs", PairsConfig, ()),
        ("baselines", BaselinesConfig, ()),
        ("evaluate", EvaluateConfig, ("model=x",)),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            configured(name, schema, [*words, f"output={tmp_path}"])
    with pytest.raises(UserError, match=re.escape(f"benchmark.{message}")):
        configured("benchmark", BenchmarkConfig, [f"benchmark.output={tmp_path}"])


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\xfe", b"[1]", b"null", b'{"hidden_size": []}', b'{"hidden_size": Infinity}'],
)
def test_a_damaged_encoder_is_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json: not the configuration of an encoder"):
        configure("teacher=folder", f"teacher.path={tmp_path}")


def test_the_home_folder_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    config = configure(
        "data=multi30k", 'data.root="~/corpora"', "eval=real_en_de", 'output_dir="~/out"'
    )
    assert config.data.root == config.eval.root == "/home/somebody/corpora"
    assert config.output_dir == "/home/somebody/out"


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (
            CorpusConfig,
            {"format": "jsonl", "header": True},
            "header is not read in the format jsonl",
        ),
        (CorpusConfig, {"format": "tsv", "revision": "main"}, "but in: dataset"),
        (CorpusConfig, {"format": "demo", "path": "pairs.tsv"}, "path is not read in the format"),
        (EvalSetConfig, {"kind": "bitext", "max_score": 1.0}, "max_score is only read of sets of"),
        (EvalSetConfig, {"kind": "sts", "format": "demo", "header": True}, "only read of files"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(
    section: type[Section], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        section(**({"targets": ["de"]} if section is CorpusConfig else {"split": "dev"}), **values)


@pytest.mark.parametrize("name", ["no_such_package", "no_such.package", "json.decoder.x", "."])
def test_a_package_that_is_not_there_is_said(name: str) -> None:
    with pytest.raises(UserError, match="is not installed"):
        encoder_folder(EncoderConfig(package=name))


def test_legal_keys_that_no_file_sets_are_said_to_need_a_plus(command: Command) -> None:
    done = command("mlkd.train", "data.corpora.demo.subset=x")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: data.corpora.demo.subset: not set so far; put a plus before it, as in "
        "+data.corpora.demo.subset=…"
    )
    configure("data=tsv", "data.corpora.pairs.header=true", "data.corpora.pairs.columns=[a,b]")


@pytest.mark.parametrize("settings", [["debug=tiny"], ["experiment=real_en_de", "data.root=x"]])
def test_a_ready_assistant_has_its_own_vocabulary(
    settings: list[str], encoder_folder: Path
) -> None:
    ready = ["assistant=folder", f"assistant.encoder.path={encoder_folder}"]
    teacher = ["teacher=folder", f"teacher.path={encoder_folder}"]
    student = ["student.layers=1", "student.bottleneck=4"]
    assert configure(*ready, *teacher, *settings, *student).assistant.vocabulary is None
    assert configure("debug=tiny").assistant.vocabulary is not None


def test_a_list_of_one_needs_no_brackets() -> None:
    plain = ("data.languages=de", "budget_mib=5", "data.corpora.demo.targets=fr",
             "student.trim={languages:de}", "eval.sets.bitext_test.languages=de",
             "logger=wandb", "logger.tags=one")  # fmt: skip
    assert configure(*plain) == configure(
        "data.languages=[de]", "budget_mib=[5]", "data.corpora.demo.targets=[fr]",
        "student.trim={languages:[de]}", "eval.sets.bitext_test.languages=[de]",
        "logger=wandb", "logger.tags=[one]",
    )  # fmt: skip
    asked = configured("evaluate", EvaluateConfig, ["model=x", "vectors=256", "documents=teacher"])
    assert (asked.vectors, asked.documents) == (["256"], ["teacher"])
    exported = configured("export", ExportConfig, ["run=x", "format=portable", "vectors=int8"])
    assert (exported.format, exported.vectors) == (["portable"], ["int8"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("vectors=256x",),
            "vectors.0: '256x' is not allowed; allowed: the first numbers, as 256, int8, binary, "
            "or both, as 128-int8",
        ),
        (("+teacher.sha256=abc",), "teacher.sha256: 'abc' is not allowed; allowed: 64 digits from"),
    ],
)
def test_a_wrong_text_is_answered_with_words(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        configured("evaluate", EvaluateConfig, ["model=x", "+teacher={path:x}", *words])


@pytest.mark.parametrize(
    ("formats", "setting", "read"),
    [
        ("gguf", "vectors=[64]", "compact, onnx_int8, onnx_q4, portable, sparse, web"),
        ("asymmetric", "vectors=[64]", "compact, onnx_int8"),
        ("[gguf,asymmetric]", "vectors=[64]", "compact, onnx_int8"),
        ("[compact,gguf]", "max_loss=2", "onnx_int8, onnx_q4, portable, web"),
        ("asymmetric", "max_loss=0", "onnx_int8, onnx_q4, portable, web"),
    ],
)
def test_settings_that_no_format_reads_are_refused(formats: str, setting: str, read: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(UserError, match=f"{key} is not read in the format .*, but in: {read}"):
        configured("export", ExportConfig, ["run=x", f"format={formats}", setting])
    configured("export", ExportConfig, ["run=x", "format=[portable,gguf]", setting])


def test_a_head_is_for_classifications() -> None:
    with pytest.raises(UserError, match="head is only read of sets of kind classification"):
        configured("evaluate", EvaluateConfig, ["model=x", "head=y"])
    configured("evaluate", EvaluateConfig, ["model=x", "head=y", "eval=demo_requests"])


@pytest.mark.parametrize(
    ("name", "schema", "words", "key"),
    [
        ("pairs", PairsConfig, "data.root=x", "data"),
        ("pairs", PairsConfig, "data.root=x eval=demo", "data"),
        ("pairs", PairsConfig, "eval=demo eval.root=x", "eval"),
        ("evaluate", EvaluateConfig, "model=x eval.root=x", "eval"),
        ("export", ExportConfig, "run=x eval=demo eval.root=x", "eval"),
        ("export", ExportConfig, "run=x trim={} data=demo data.root=x", "data"),
    ],
)
def test_folders_of_embedded_text_are_refused(
    name: str, schema: type[Section], words: str, key: str
) -> None:
    with pytest.raises(UserError, match=f"{key}.root: not read, all .* embedded"):
        configured(name, schema, words.split())


def test_ask_is_for_prune() -> None:
    with pytest.raises(UserError, match="ask is only read by prune"):
        configured("runs", RunsConfig, ["ask=false"])
    assert not configured("runs", RunsConfig, ["action=prune", "ask=false"]).ask


def test_evaluation_sets_follow_the_languages_of_the_data() -> None:
    def sets(*words: str) -> dict[str, tuple[list[str], list[str] | None]]:
        return {name: (x.languages, x.pairs) for name, x in configure(*words).eval.sets.items()}

    whole = sets()
    assert whole["bitext_test"] == (["de", "fr", "es", "tr"], None)
    graded = ["en-en", "de-de", "fr-fr", "es-es", "tr-tr",
              "en-de", "en-fr", "en-es", "en-tr", "de-fr", "es-tr"]  # fmt: skip
    assert whole["sts_dev"] == whole["sts_test"] == (["en", "de", "fr", "es", "tr"], graded)
    german = (["en", "de"], ["en-en", "de-de", "en-de"])
    for word in ("data.languages=[de]", "data.languages=de"):
        assert sets(word) == {
            "sts_dev": german, "sts_test": german, "bitext_test": (["de"], None)
        }  # fmt: skip
    named = sets("data.languages=de", "eval.sets.sts_dev.languages=[en,tr]")
    assert named["sts_dev"] == (["en", "tr"], ["en-en", "tr-tr", "en-tr"])
    assert named["sts_test"] == german
    assert sets("eval.sets.sts_dev.languages=[EN,DE]")["sts_dev"] == german
    from_german = ("data=tsv", "data.corpora.pairs.source=de", "data.corpora.pairs.targets=[fr]")
    assert sets(*from_german, "data.languages=[fr]")["sts_dev"] == (
        ["de", "fr"], ["de-de", "fr-fr", "de-fr"]
    )  # fmt: skip
    # Of a language that no set has, all that there are.
    words = ("data=tsv", "data.corpora.pairs.targets=[pl]", "data.languages=[pl]")
    assert sets(*words) == whole
    some = sets("data=real_multilingual", "eval=real_multilingual", "data.languages=[fr,ja]")
    assert some["multi30k_dev"][0] == ["fr"] and some["tatoeba_test"][0] == ["fr", "ja"]
    with pytest.raises(UserError, match="'xxq' is no language"):
        configure("data.languages=xxq")
    for word, message in [
        ("data.languages=true", "data.languages: True is no valid list; YAML reads no, on"),
        ("data.languages=5", "data.languages.0: 5 is no language"),
        ("eval.sets.sts_dev.languages=null", "eval.sets.sts_dev.languages=None: input should"),
    ]:
        with pytest.raises(UserError, match=f"^{re.escape(message)}"):
            configure(word)


def test_flags_that_exclude_each_other_are_refused_in_a_line(command: Command) -> None:
    result = command("mlkd.train", "--run", "--cfg", "job")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "Only one of --run, --multirun, --cfg" in result.stderr


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu avx2 avx512f", "fp32"),
        ("fpu avx512f avx512_bf16", "bf16"),
        ("fpu amx_bf16 avx512_bf16", "bf16"),
    ],
)
def test_bf16_is_taken_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, precision: str
) -> None:
    monkeypatch.setattr("mlkd.machine.hardware._cpu_info", lambda field: flags.split())
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == precision
    assert resolve_precision("fp32", cpu) == "fp32"
