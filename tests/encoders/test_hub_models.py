"""The hub options on local folders: tiny weights behind the real architectures and tokenizers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from architectures import XLMR_ROWS, write_mpnet
from conftest import ENGLISH, GERMAN, configure, sts_settings
from sentence_transformers.base.modules import Dense

from mlkd.config.inputs import EncoderConfig
from mlkd.config.schema import TrainConfig
from mlkd.config.student import InitConfig, StudentConfig
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.output.errors import UserError
from mlkd.student.initialise import build_student


@pytest.fixture(scope="module")
def mpnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mpnet(tmp_path_factory.mktemp("mpnet"), ENGLISH)


def local(key: str, folder: Path) -> list[str]:
    return [f"{key}.path={folder}", f"{key}.name=null", f"{key}.revision=null"]


@pytest.fixture
def settings(corpus: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    stages = ("bottleneck", "recurrent", "contrastive")

    def build(*overrides: str) -> TrainConfig:
        return configure(
            "data=tsv",
            f"data.root={corpus}",
            "data.dev_fraction=0.2",
            "data.max_tokens=16",
            "student.bottleneck=4",
            "student.layers=2",
            "trainer.precision=fp32",
            "trainer.threads=1",
            f"output_dir={tmp_path / 'out'}",
            *(f"stages.{stage}.max_steps=2" for stage in stages),
            *sts_settings(corpus),
            *overrides,
        )

    return build


@pytest.mark.parametrize(
    ("teacher", "rows"),
    [
        pytest.param("roberta", 30_002, marks=pytest.mark.slow),
        pytest.param("mpnet", 30_002, marks=pytest.mark.slow),
        pytest.param("roberta", XLMR_ROWS, marks=[pytest.mark.slow, pytest.mark.by_hand]),
    ],
)
def test_a_ready_assistant_with_the_full_vocabulary(
    teacher: str,
    rows: int,
    settings: Callable[..., TrainConfig],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlkd.recipes.run import run_chain

    monkeypatch.setattr("mlkd.recipes.inputs._SAME_SPACE", -1.0)  # both have random weights
    caplog.set_level("INFO")
    assistant = request.getfixturevalue("xlmr_full" if rows == XLMR_ROWS else "xlmr")
    option = {"roberta": "paraphrase_distilroberta", "mpnet": "all_mpnet"}[teacher]
    config = settings(
        "assistant=xlmr_paraphrase",
        *local("assistant.encoder", assistant),
        f"teacher={option}",
        *local("teacher", request.getfixturevalue(teacher)),
    )
    run_chain(config)
    assert caplog.text.count(": ran (") == 3  # a ready assistant is not trained
    (folder,) = (tmp_path / "out/runs").glob("contrastive-*")
    record = json.loads((folder / "run.json").read_text())
    layer = 4 * (16 * 16 + 16) + 2 * 16 * 32 + 16 + 32 + 4 * 16
    expected = rows * 4 + 4 * 16 + 34 * 16 + 16 + 2 * 16 + 2 * layer
    assert record["metrics"]["parameters"]["total"] == expected


def test_an_assistant_of_another_space_is_refused_unless_it_is_trained(
    roberta: Path, encoder_folder: Path, settings: Callable[..., TrainConfig]
) -> None:
    from mlkd.recipes.chain import open_chain

    def assistant(folder: Path, *more: str) -> TrainConfig:
        ready = ["assistant=folder", f"assistant.encoder.path={folder}"]
        return settings(*ready, "teacher=folder", f"teacher.path={encoder_folder}", *more)

    with pytest.raises(UserError, match=r"different spaces \(mean cosine .*assistant\.train=true"):
        open_chain(assistant(roberta))
    open_chain(assistant(roberta, "assistant.train=true"))
    with pytest.raises(UserError, match="different spaces"):
        open_chain(assistant(roberta, "assistant.train=true", "stages.assistant.enabled=false"))
    open_chain(assistant(encoder_folder))


def test_an_assistant_of_another_width_is_refused_before_its_training(
    encoder_folder: Path, settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    from mlkd.recipes.chain import open_chain

    wider = load_folder(encoder_folder)
    width = wider.get_embedding_dimension()
    wider.append(Dense(width, width + 8))
    wider.save(str(tmp_path / "wider"))
    ready = ["assistant=folder", f"assistant.encoder.path={tmp_path / 'wider'}"]
    teacher = ["teacher=folder", f"teacher.path={encoder_folder}"]
    message = rf"teacher \(width {width}\) and assistant \(width {width + 8}\)"
    with pytest.raises(UserError, match=message):
        open_chain(settings(*ready, *teacher, "assistant.train=true"))


def test_stage_one_may_train_a_ready_assistant(
    xlmr: Path, roberta: Path, settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    from mlkd.recipes.recipe import links

    config = settings(
        "assistant=folder",
        f"assistant.encoder.path={xlmr}",
        "assistant.train=true",
        "teacher=folder",
        f"teacher.path={roberta}",
    )
    assert links(config)[0].name == "assistant"


def test_an_assistant_grows_from_a_byte_level_teacher(
    roberta: Path, settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    run_chain(
        settings(
            "teacher=folder",
            f"teacher.path={roberta}",
            "assistant.vocabulary.size=300",
            "assistant.vocabulary.keep_teacher=false",
            "stages.assistant.max_steps=2",
        )
    )
    assert list((tmp_path / "out/runs").glob("contrastive-*/student/model.safetensors"))


def test_students_of_xlmr_are_bit_equal_after_saving(xlmr: Path, tmp_path: Path) -> None:
    source = load_folder(xlmr)
    size = StudentConfig(bottleneck=4, layers=2, recurrence=2)
    init = InitConfig(source="teacher", layers="ends", embedding="svd")
    student = build_student(source, size, init, torch.ones(30_002), 16)
    save_folder(student, tmp_path / "student")
    again = load_folder(tmp_path / "student")
    for texts in (ENGLISH, GERMAN):
        assert (student.encode(texts) == again.encode(texts)).all()
    # Positions start behind the padding id: longer inputs are cut, not out of range.
    assert again.encode(["word " * 200]).shape == (1, 16)


@pytest.mark.parametrize("option", ["talks", "europarl", "news_commentary", "wikimatrix"])
def test_hub_corpora_from_a_local_copy(
    option: str, tmp_path: Path, settings: Callable[..., TrainConfig]
) -> None:
    from mlkd.data.pairs import prepare_pairs

    name = option.replace("_", "-")
    subset = tmp_path / "sentence-transformers" / f"parallel-sentences-{name}" / "en-de"
    subset.mkdir(parents=True)
    rows = [
        (f"{e} {i}", f"{g} {i}") for i in range(40) for e, g in zip(ENGLISH, GERMAN, strict=True)
    ]
    table = pa.table({"english": [e for e, _ in rows], "non_english": [g for _, g in rows]})
    pq.write_table(table, subset / "train-00000-of-00001.parquet")
    data = settings(f"data={option}", f"data.root={tmp_path}", "data.languages=[de]").data
    pairs = prepare_pairs(data, [], tmp_path / "cache")
    assert len(pairs) == 240
    assert pairs.text(int(pairs.source[0])) in {e for e, _ in rows}


def hub_options() -> list[str]:
    from mlkd.config.compose import CONF_DIR

    found = [*(CONF_DIR / "teacher").glob("*.yaml"), *(CONF_DIR / "assistant").glob("*.yaml")]
    found += (CONF_DIR / "data").glob("*.yaml")
    return [
        str(p.relative_to(CONF_DIR))
        for p in sorted(found)
        if "sentence-transformers/" in p.read_text()
    ]


@pytest.mark.parametrize("option", hub_options())
def test_hub_names_are_pinned_to_commits(option: str) -> None:
    from omegaconf import OmegaConf

    from mlkd.config.compose import CONF_DIR

    content = OmegaConf.to_container(OmegaConf.load(CONF_DIR / option))
    assert isinstance(content, dict)
    content.pop("defaults", None)
    if "corpora" in content:
        places = list(content["corpora"].values())
    else:
        places = [content["encoder"] if "encoder" in content else content]
        EncoderConfig.model_validate(places[0])
    for place in places:
        assert len(place["revision"]) == 40
        int(place["revision"], 16)
