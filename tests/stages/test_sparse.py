"""Few entries are trained, and nothing else moves."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ENGLISH, configure, run_until, tiny_settings, write_corpus
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

import mlkd
from mlkd.config.schema import TrainConfig
from mlkd.config.stages import known_stages
from mlkd.config.student import InitConfig, StudentConfig
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.difference import (
    Differences,
    codes_of,
    read_difference,
    weights_fingerprint,
    weights_of,
)
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.metrics.summary import numbers
from mlkd.output.errors import UserError
from mlkd.recipes.early import refuse_unread
from mlkd.recipes.recipe import links
from mlkd.stages.sparse import SparseStage, maskable
from mlkd.student.furthest import furthest
from mlkd.student.initialise import build_student
from mlkd.student.table import WholeTable

PLAIN = ("student.bottleneck=null", "student.trim=null")
FACTORISED = ("init.embedding=svd", "student.recurrence=2", "student.trim=null")


@pytest.fixture
def settings(
    encoder_folder: Path, finished_assistant: Path, tmp_path: Path
) -> Callable[..., TrainConfig]:
    """Chains of a recipe whose assistant is finished."""
    corpus = write_corpus(tmp_path / "corpus")

    def build(name: str, *overrides: str, recipe: str = "bistil_pairs") -> TrainConfig:
        output = tmp_path / name
        if not output.exists():
            shutil.copytree(finished_assistant, output)
        given = tiny_settings(encoder_folder, corpus, output)
        known = [x for x in given if not x.startswith("stages.") or x.startswith("stages.assist")]
        sizes = ["max_steps=6", "epochs=9999", "batch_size=16", "lr=0.01", "dropout=0.1"]
        budgets = [f"stages.{link}.{x}" for link in ("layers", "dense", "sparse") for x in sizes]
        return configure(f"recipe={recipe}", *known, *budgets, *overrides)

    return build


def run(output: Path, link: str) -> Path:
    (folder,) = (output / "runs").glob(f"{link}-*")
    return folder


def flat(folder: Path) -> dict[str, Tensor]:
    """The parameters of a student, as bits."""
    model = load_folder(folder / "student")
    return {n: p.detach().view(-1).view(torch.int32) for n, p in model.named_parameters()}


@pytest.mark.parametrize(
    "student",
    [pytest.param(PLAIN, marks=pytest.mark.slow), FACTORISED],
    ids=["plain", "factorised"],
)
def test_only_what_moved_furthest_is_trained(
    settings: Callable[..., TrainConfig], tmp_path: Path, student: tuple[str, ...]
) -> None:
    from mlkd.recipes.run import run_chain

    clipped = "stages.sparse.optim.clip=1e-4"  # far below the norm of every step
    run_chain(settings("out", *student, clipped, "stages.sparse.density=0.08"))
    folders = {link: run(tmp_path / "out", link) for link in ("layers", "dense", "sparse")}
    start, moved, now = (flat(folder) for folder in folders.values())
    total = sum(len(weight) for weight in start.values())
    count = math.floor(0.08 * total)
    real = [{n: w.view(torch.float32) for n, w in x.items()} for x in (start, moved)]
    masks = dict(zip(start, furthest(*real, count), strict=True))
    assert sum(int(mask.sum()) for mask in masks.values()) == count
    changed = 0
    for name, mask in masks.items():
        assert torch.equal(now[name][~mask], start[name][~mask]), name
        changed += int((now[name] != start[name]).sum())
    assert 0.9 * count < changed <= count
    found = read_difference(folders["sparse"])
    assert (found.count, found.density) == (changed, 0.08)
    base = load_folder(folders["layers"] / "student")
    assert found.base == weights_fingerprint(weights_of(base).items())
    tasks = Differences(base)
    tasks.apply(folders["sparse"])
    for name, parameter in base.named_parameters():
        assert torch.equal(parameter.detach().view(-1).view(torch.int32), now[name]), name
    vectors = [mlkd.load(folders["sparse"]).encode(ENGLISH), base.encode(ENGLISH)]
    assert (vectors[0] == vectors[1]).all()
    assert (
        mlkd.load(folders["layers"], diff=folders["sparse"]).encode(ENGLISH) == vectors[0]
    ).all()


def stage_of(start: SentenceTransformer, moved: Path, **keys: bool) -> SparseStage:
    link = {"stage": "sparse", "epochs": 1, "batch_size": 3, "lr": 0.01, "density": 0.1}
    inputs = {"start": "dense", "moved": "dense", "target": "teacher"}
    given = {"inputs": inputs, "loss": {"pair_mse": {}}, "optim": {"weight_decay": 0.0}}
    settings = known_stages()["sparse"].model_validate(link | given | keys)
    return SparseStage(start, settings, 10, folders={"moved": moved})


def pushed(folder: Path, place: Path) -> Path:
    """An encoder all of whose entries have moved a little."""
    model = load_folder(folder)
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    save_folder(model, place)
    return place


def test_rows_that_are_not_trained_count_and_keep_their_places(
    encoder_folder: Path, tmp_path: Path
) -> None:
    """K is a share of all entries, and positions are those of the whole word table."""
    moved = pushed(encoder_folder, tmp_path / "moved")
    model = load_folder(encoder_folder)
    occurs = torch.arange(backbone_of(model).config.vocab_size) % 3 == 1
    whole = WholeTable.take_out(backbone_of(model), occurs)
    assert whole is not None
    stage = stage_of(model, moved)
    weights = weights_of(load_folder(encoder_folder))
    count = math.floor(0.1 * sum(weight.numel() for weight in weights.values()))
    assert sum(int(mask.sum()) for mask in stage.buffers() if mask.dtype == torch.bool) == count
    for number, parameter in enumerate(stage._maskable.values()):
        parameter.data[getattr(stage, f"mask{number}")] += 1.0
    whole.put_back()
    found = stage.difference()
    assert found.count == count
    for name, entries in found.changed.items():
        before = weights[name].detach()
        wanted = before.view(-1)[entries.index] + 1.0
        assert torch.equal(entries.values, wanted), name
        if len(before) == len(occurs):
            assert (
                occurs[entries.index // before.shape[1]]
                .logical_or(
                    entries.index // before.shape[1] == 0  # the padding row is always there
                )
                .all()
            )
    assert found.base == weights_fingerprint(weights.items())


def test_layernorms_are_frozen_if_that_is_asked(encoder_folder: Path, tmp_path: Path) -> None:
    moved = pushed(encoder_folder, tmp_path / "moved")
    for frozen in (False, True):
        stage = stage_of(load_folder(encoder_folder), moved, freeze_layernorm=frozen)
        read = weights_of(stage.model)  # but for BERT's pooler
        still = {name for name, parameter in read.items() if not parameter.requires_grad}
        norms = {name for name in read if "LayerNorm" in name}
        assert still == (norms if frozen else set())


def test_a_training_of_other_codes_is_no_training_of_the_start(
    encoder_folder: Path, tmp_path: Path
) -> None:
    source = load_folder(encoder_folder)
    frequency = torch.ones(backbone_of(source).config.vocab_size)
    init = InitConfig(source="teacher", layers="ends", embedding="kmeans")
    size = StudentConfig(bottleneck=None, codes=4, layers=2, recurrence=1)
    student = build_student(source, size, init, frequency, 16)
    for name in ("own", "other"):
        save_folder(student, tmp_path / name)
        for codes in codes_of(student).values():
            codes.copy_(codes.flip(0))
    moved = [pushed(tmp_path / name, tmp_path / f"moved-{name}") for name in ("own", "other")]
    assert stage_of(load_folder(tmp_path / "own"), moved[0]).difference().count == 0
    for other in (moved[1], pushed(encoder_folder, tmp_path / "plain")):
        with pytest.raises(UserError, match="no training of start: it has other codes"):
            stage_of(load_folder(tmp_path / "own"), other)


@pytest.mark.slow
def test_all_entries_are_dense_training(
    settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    run_chain(settings("out", *PLAIN, "stages.sparse.density=1"))
    dense, sparse = (flat(run(tmp_path / "out", link)) for link in ("dense", "sparse"))
    assert all(torch.equal(dense[name], sparse[name]) for name in dense)
    curves = [
        json.loads((run(tmp_path / "out", link) / "run.json").read_text())["training"]["curve"]
        for link in ("dense", "sparse")
    ]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_it_goes_on_where_it_was_killed(
    settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    more = (*FACTORISED, "stages.sparse.freeze_layernorm=true", "trainer.validations=3")
    run_chain(settings("whole", *more, "stage=dense"))
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    run_chain(settings("whole", *more))
    run_until(settings("parts", *more), 3)
    assert (run(tmp_path / "parts", "sparse") / "last.ckpt").is_file()
    run_chain(settings("parts", *more))
    folders = [run(tmp_path / name, "sparse") for name in ("whole", "parts")]
    for file in ("student/model.safetensors", "diff/diff.safetensors"):
        one, other = (load_file(folder / file) for folder in folders)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    records = [json.loads((folder / "run.json").read_text())["training"] for folder in folders]
    assert records[0]["curve"] == records[1]["curve"]
    start, now = flat(run(tmp_path / "whole", "layers")), flat(folders[0])
    norms = [name for name in start if "LayerNorm" in name]
    assert len(norms) == 10
    assert all(torch.equal(start[name], now[name]) for name in norms)
    total = sum(len(weight) for name, weight in start.items() if name not in norms)
    changed = sum(int((now[name] != start[name]).sum()) for name in start)
    assert 0.8 * 0.08 * total < changed <= math.floor(0.08 * total)


@pytest.mark.parametrize("recipe", ["bistil", "hrkd_task"])
def test_similarities_have_no_head_that_anything_reads(recipe: str) -> None:
    graded = "{kind: similarity, format: tsv, path: graded.tsv}"
    usual = [f"recipe={recipe}", "data=demo", f"+data.labelled.graded={graded}"]
    config = configure(*usual)
    last = links(config)[-1]
    assert last.inputs.keys() == last.settings.inputs.keys() - {"source"}
    assert "target" in last.inputs and "target_head" not in last.inputs
    words = [*usual, f"stages.{last.name}.inputs.target_head=task.head"]
    message = f"stages.{last.name}.inputs.target_head: not read, task.head is not handed over for"
    with pytest.raises(UserError, match=message):
        refuse_unread(configure(*words), words)
    with pytest.raises(UserError, match=r"task\.haed: the outputs of the link task are: head, st"):
        links(configure(*usual, f"stages.{last.name}.inputs.target_head=task.haed"))
    classes = [f"recipe={recipe}", "data=demo_requests"]
    assert "target_head" in links(configure(*classes))[-1].inputs


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classification", "similarity"])
def test_a_task_is_learned_by_few_entries_and_a_head(
    settings: Callable[..., TrainConfig], tmp_path: Path, kind: str
) -> None:
    from mlkd.recipes.run import run_chain

    rows = [f"{text} {n}" for n in range(12) for text in ENGLISH]
    if kind == "similarity":
        rows = [f"{row}\t{rows[(3 * n + 1) % len(rows)]}\t{n % 6}" for n, row in enumerate(rows)]
        text, heads = "{kind: similarity, format: tsv, path: labelled.tsv}", []
    else:
        rows = [f"{row}\t{'ab'[n % 2]}" for n, row in enumerate(rows)]
        text = "{kind: classification, format: tsv, path: labelled.tsv, labels: [a, b]}"
        heads = ["head"]
    (tmp_path / "corpus/labelled.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    given = [f"+data.labelled.reviews={text}", *PLAIN]
    given += ["stages.task.max_steps=2", "stages.task.batch_size=16"]
    run_chain(settings("out", *given, "stages.sparse.density=0.05", recipe="bistil"))
    folders = {link: run(tmp_path / "out", link) for link in ("layers", "dense", "sparse")}
    start, now = flat(folders["layers"]), flat(folders["sparse"])
    changed = sum(int((now[name] != start[name]).sum()) for name in start)
    count = math.floor(0.05 * sum(len(weight) for weight in start.values()))
    assert 0.8 * count < changed <= count
    assert read_difference(folders["sparse"]).count == changed
    applied = mlkd.load(folders["layers"], diff=folders["sparse"]).encode(ENGLISH)
    assert (applied == mlkd.load(folders["sparse"]).encode(ENGLISH)).all()
    record = json.loads((folders["sparse"] / "run.json").read_text())
    assert sorted(record["outputs"]) == sorted(["student", "diff", *heads])
    size = (folders["sparse"] / "diff/diff.safetensors").stat().st_size
    assert numbers(record["metrics"])["diff_mib"] == size / 2**20
    dense = json.loads((folders["dense"] / "run.json").read_text())
    assert "diff_mib" not in numbers(dense["metrics"])
    # Of all entries nothing is left out: the same as dense, the head from the same start as well.
    run_chain(settings("out", *given, "stages.sparse.density=1", recipe="bistil"))
    (whole,) = {*(tmp_path / "out/runs").glob("sparse-*")} - {folders["sparse"]}
    for file in ("student/model.safetensors", *(f"{head}/head.safetensors" for head in heads)):
        one, other = (load_file(folder / file) for folder in (folders["dense"], whole))
        assert all(torch.equal(one[name], other[name]) for name in one), file


def test_adamw_leaves_entries_without_gradient_and_decay_alone() -> None:
    """In every bit, that of the sign of 0 too; also while others of the tensor have a gradient."""
    values = torch.tensor([0.0, -0.0, 1e-45, -1e-38, 1.1, 3e38, -7.7, 0.5])
    parameter = nn.Parameter(values.clone())
    optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.0, fused=True)
    mask = torch.arange(8) == 7
    for step in range(50):
        parameter.grad = torch.randn(8, generator=torch.Generator().manual_seed(step))
        parameter.grad.masked_fill_(~mask, 0.0)
        nn.utils.clip_grad_norm_([parameter], 0.01)
        optimizer.step()
    bits = [x.detach().view(torch.int32) for x in (parameter, values)]
    assert torch.equal(bits[0][:7], bits[1][:7])
    assert parameter[7] != 0.5


@pytest.mark.parametrize(
    ("freeze", "entries", "count"),
    [(False, 65_963_520, 5_277_081), (True, 65_943_552, 5_275_484)],
)
def test_the_numbers_of_a_student_of_mbert(freeze: bool, entries: int, count: int) -> None:
    """30,000 pieces and 6 layers of multilingual BERT."""
    with torch.device("meta"):
        size = BertConfig(vocab_size=30_000, num_hidden_layers=6)
        model = BertModel(size, add_pooling_layer=False)
    found = sum(parameter.numel() for parameter in maskable(model, freeze).values())
    assert (found, math.floor(0.08 * found)) == (entries, count)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("stages.dense.lr=1e-46", "the input moved has not been trained"),
        ("stages.sparse.inputs.moved=assistant", "the input moved is no training of start"),
        ("stages.sparse.density=1e-9", "density=1e-09 of [0-9]+ entries is none"),
    ],
)
def test_what_cannot_be_is_refused(
    settings: Callable[..., TrainConfig], given: str, message: str
) -> None:
    from mlkd.recipes.run import run_chain

    with pytest.raises(UserError, match=f"stage sparse: {message}"):
        run_chain(settings("out", *PLAIN, "stages.layers.max_steps=1", given))


def test_decay_is_refused_before_anything_runs(settings: Callable[..., TrainConfig]) -> None:
    with pytest.raises(UserError, match=r"optim\.weight_decay=0\.01 would change entries"):
        settings("out", "stages.sparse.optim.weight_decay=0.01")
