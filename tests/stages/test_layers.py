"""Layers of a student aim at those of its assistant."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import (
    ENGLISH,
    GERMAN,
    at_steps,
    configure,
    run_until,
    stored_tokens,
    tiny_settings,
    weights,
    write_corpus,
)
from sentence_transformers import SentenceTransformer
from torch import Tensor

from mlkd.config.schema import TrainConfig
from mlkd.config.stages import known_stages
from mlkd.config.stages.layers import HiddenConfig
from mlkd.config.student import InitConfig, StudentConfig, TrimConfig
from mlkd.data.module import PairBatch
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.encoders.folder import load_folder
from mlkd.encoders.forward import encode
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.output.errors import UserError
from mlkd.stages.base import Stage
from mlkd.stages.layer_terms import LayerTerms
from mlkd.stages.layers import LayersStage
from mlkd.stages.masking import masked
from mlkd.student.initialise import build_student
from mlkd.student.trim import pieces_to_keep, trimmed
from mlkd.targets.live import LiveEncoder

TEXTS = [*ENGLISH[:3], *GERMAN[:3]]


def student_of(
    folder: Path, stored: int, recurrence: int = 1, codes: int | None = None
) -> SentenceTransformer:
    source = load_folder(folder)
    init = InitConfig(source="teacher", layers="ends", embedding="kmeans" if codes else "copy")
    size = StudentConfig(bottleneck=None, codes=codes, layers=stored, recurrence=recurrence)
    frequency = torch.ones(backbone_of(source).config.vocab_size)
    return build_student(source, size, init, frequency, 16)


def stage_for(model: SentenceTransformer, target: Path, **more: Any) -> LayersStage:
    given = {"start": "student", "target": "assistant"}
    link = {"stage": "layers", "inputs": given, "epochs": 1, "batch_size": 3, "lr": 0.01}
    settings = known_stages()["layers"].model_validate(link | {"map": "ends"} | more)
    live = LiveEncoder.of(FrozenEncoder.open(target, max_tokens=16), model.tokenizer)
    return LayersStage(model, settings, 10, {"target": live})


def batch_for(model: SentenceTransformer, padding: int = 0) -> PairBatch:
    """Three pairs over six sentences, with so much more padding."""
    ids, mask = map(torch.from_numpy, stored_tokens(model, TEXTS).padded(np.arange(len(TEXTS))))
    pad = model.tokenizer.pad_token_id
    first, second, none = torch.arange(3), torch.arange(3, 6), torch.zeros(3, dtype=torch.long)
    width = backbone_of(model).config.hidden_size
    targets = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(5))
    return PairBatch(
        torch.nn.functional.pad(ids, (0, padding), value=pad),
        torch.nn.functional.pad(mask, (0, padding)),
        torch.arange(6), first, second, *targets, none, none,
    )  # fmt: skip


def own_outputs(model: SentenceTransformer, text: str) -> tuple[list[Tensor], list[Tensor]]:
    """Token states and attention of one sentence alone, from transformers' own forward."""
    backbone = backbone_of(model)
    backbone.set_attn_implementation("eager")
    ids = torch.tensor([model.tokenizer(text, truncation=True, max_length=16)["input_ids"]])
    output = backbone(input_ids=ids, output_hidden_states=True, output_attentions=True)
    return list(output.hidden_states), list(output.attentions)


def loop(
    student: SentenceTransformer, assistant: SentenceTransformer, aims: list[int]
) -> tuple[Tensor, Tensor]:
    """Both terms, sentence by sentence without padding."""
    states, shares, tokens, entries = [], [], 0, 0
    for text in TEXTS:
        (mine, own), (theirs, their_own) = (own_outputs(m, text) for m in (student, assistant))
        tokens += mine[0][0].numel()
        entries += own[0].numel()
        pairs = [(0, 0), *enumerate(aims, start=1)]
        states.append(sum((mine[n] - theirs[m].detach()).square().sum() for n, m in pairs))
        shares.append(
            sum((own[n - 1] - their_own[m - 1].detach()).square().sum() for n, m in pairs[1:])
        )
    return (
        torch.stack(states).sum() / (tokens * (len(aims) + 1)),
        torch.stack(shares).sum() / (entries * len(aims)),
    )


@pytest.mark.parametrize(
    ("stored", "recurrence", "aims"),
    [(2, 1, [1, 4]), (3, 1, [1, 3, 4]), (1, 3, [1, 3, 4]), (2, 3, [1, 1, 2, 3, 3, 4])],
)
def test_the_loss_and_its_gradients_are_those_of_a_loop_over_sentences(
    encoder_folder: Path, stored: int, recurrence: int, aims: list[int]
) -> None:
    model = student_of(encoder_folder, stored, recurrence)
    loss = {"hidden": {"weight": 0.5}, "attention": {"weight": 20.0}}
    stage = stage_for(model, encoder_folder, loss=loss)
    output = stage.objective(batch_for(model))
    output.loss.backward()
    ours = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    hidden, attention = loop(model, load_folder(encoder_folder), aims)
    assert min(hidden.item(), attention.item()) > 1e-4
    (0.5 * hidden + 20.0 * attention).backward()
    torch.testing.assert_close(output.logs["hidden"], hidden.detach(), rtol=1e-4, atol=0)
    torch.testing.assert_close(output.logs["attention"], attention.detach(), rtol=1e-4, atol=0)
    for name, p in model.named_parameters():
        if p.grad is None:
            assert ours[name] is None, name
        else:
            torch.testing.assert_close(ours[name], p.grad, rtol=1e-3, atol=1e-5)


def test_padding_changes_nothing(encoder_folder: Path) -> None:
    model = student_of(encoder_folder, 2)
    stage = stage_for(model, encoder_folder, loss={"pair_mse": {"weight": 2.0}})
    plain, padded = (stage.objective(batch_for(model, padding)) for padding in (0, 5))
    assert plain.logs.keys() == padded.logs.keys() == {"hidden", "attention", "pair_mse"}
    for name, value in plain.logs.items():
        torch.testing.assert_close(padded.logs[name], value, rtol=1e-5, atol=1e-8)
    whole = plain.logs["hidden"] + plain.logs["attention"] + 2 * plain.logs["pair_mse"]
    torch.testing.assert_close(plain.loss.detach(), whole)


@pytest.mark.parametrize("kind", ["whole", "trimmed", "other"])
def test_a_student_with_all_layers_has_nothing_to_learn(encoder_folder: Path, kind: str) -> None:
    model = student_of(encoder_folder, 4)
    if kind == "trimmed":
        ids = [i for row in model.tokenizer(TEXTS)["input_ids"] for i in row]
        counts = np.bincount(ids, minlength=backbone_of(model).config.vocab_size)
        whole = len(counts)
        keep = pieces_to_keep(model, {"de": counts}, TrimConfig(languages=["de"], min_share=0.001))
        model = trimmed(model, keep)
        assert backbone_of(model).config.vocab_size < whole
    if kind == "other":
        torch.nn.init.normal_(layers(backbone_of(model))[1].attention.self.query.weight)
    output = stage_for(model, encoder_folder).objective(batch_for(model))
    zero = [value.item() == 0.0 for value in output.logs.values()]
    assert zero == [kind != "other"] * 2


def test_mixed_precision_ends_with_the_encoders(
    encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = student_of(encoder_folder, 2)
    stage, terms, mixed = stage_for(model, encoder_folder), LayerTerms.terms, []

    def spying_terms(self: LayerTerms, *given: Any) -> Any:
        mixed.append(torch.is_autocast_enabled("cpu"))
        return terms(self, *given)

    monkeypatch.setattr(LayerTerms, "terms", spying_terms)
    with torch.autocast("cpu", torch.bfloat16):
        stage.objective(batch_for(model))
    assert mixed == [False]


def test_words_in_codes_are_not_masked(encoder_folder: Path) -> None:
    model = student_of(encoder_folder, 2, codes=4)
    assert stage_for(model, encoder_folder).objective(batch_for(model)).loss > 0
    with pytest.raises(UserError, match=r"stage layers: masking is not for student\.codes"):
        stage_for(model, encoder_folder, masking={"share": 0.15})


def test_what_is_left_out_is_not_computed(encoder_folder: Path) -> None:
    model = student_of(encoder_folder, 2)
    stage = stage_for(model, encoder_folder, loss={"attention": None})
    assert stage.signals(stage.settings).vectors is None
    batch = batch_for(model)
    batch.source_target = batch.translation_target = None
    assert stage.objective(batch).logs.keys() == {"hidden"}
    stage = stage_for(model, encoder_folder, loss={"hidden": None})
    assert stage.objective(batch).logs.keys() == {"attention"}
    stage = stage_for(model, encoder_folder, loss={"pair_mse": {}})
    read = stage.signals(stage.settings)
    assert read.vectors is not None
    assert (read.vectors.role, read.vectors.translation) == ("target", "translation")
    assert [taps.sentence for taps in stage._layers.taps(sentence=True)] == [True, False]
    with pytest.raises(ValueError, match="give at least one of hidden, attention"):
        stage_for(model, encoder_folder, loss={"hidden": None, "attention": None, "pair_mse": {}})


def test_a_target_that_is_no_match_is_refused(encoder_folder: Path, tmp_path: Path) -> None:
    student_of(encoder_folder, 2).save_pretrained(str(tmp_path / "shallow"))
    model = load_folder(encoder_folder)
    with pytest.raises(UserError, match="the input target has 2 layers, the student 4"):
        stage_for(model, tmp_path / "shallow")
    longest = [FrozenEncoder.open(encoder_folder, max_tokens=length) for length in (32, 33)]
    LayerTerms("layers", model, longest[0], "ends", HiddenConfig(), None)
    with pytest.raises(UserError, match="max_tokens=33: the input target reads at most 32 tokens"):
        LayerTerms("layers", model, longest[1], "ends", HiddenConfig(), None)
    backbone_of(model).config.num_attention_heads = 4
    with pytest.raises(UserError, match="number of attention heads of the input target is 2"):
        stage_for(model, encoder_folder)
    stage_for(model, encoder_folder, loss={"attention": None})
    backbone_of(model).config.hidden_size = 32
    with pytest.raises(UserError, match="hidden size of the input target is 16, the student's"):
        stage_for(model, encoder_folder)


@pytest.fixture
def settings(
    encoder_folder: Path, finished_assistant: Path, tmp_path: Path
) -> Callable[..., TrainConfig]:
    """Chains of ``recipe=layerwise`` whose assistant is finished."""
    corpus = write_corpus(tmp_path / "corpus")

    def build(name: str, *overrides: str) -> TrainConfig:
        output = tmp_path / name
        if not output.exists():
            shutil.copytree(finished_assistant, output)
        given = tiny_settings(encoder_folder, corpus, output)
        known = [x for x in given if not x.startswith("stages.") or x.startswith("stages.assist")]
        sizes = ["max_steps=6", "epochs=9999", "batch_size=16"]
        links = [f"stages.{link}.{size}" for link in ("layers", "mse") for size in sizes]
        return configure("recipe=layerwise", *known, *links, *overrides)

    return build


@pytest.mark.slow
def test_the_recipe_trains_and_goes_on_where_it_was_killed(
    settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    more = [
        "student.layers=1",
        "student.recurrence=2",
        "stages.layers.dropout=0.1",  # its random state has to go on as well
        "stages.layers.loss.pair_mse={weight:1.0}",
    ]
    run_chain(settings("whole", *more))
    run_until(settings("parts", *more), 3)
    (stopped,) = (tmp_path / "parts/runs").glob("layers-*")
    assert (stopped / "last.ckpt").is_file()
    run_chain(settings("parts", *more))
    records = []
    for name in ("whole", "parts"):
        (folder,) = (tmp_path / name / "runs").glob("layers-*")
        records.append(json.loads((folder / "run.json").read_text()))
    assert records[0]["training"]["curve"] == records[1]["training"]["curve"]
    curve = records[0]["training"]["curve"]
    assert {"dev/hidden", "dev/attention", "dev/pair_mse"} < curve[0].keys()
    assert curve[-1]["dev/loss"] < curve[0]["dev/loss"]
    assert records[0]["inputs"]["target"] == records[0]["inputs"]["source"]  # the assistant
    for link in ("layers", "mse"):
        one, other = (weights(tmp_path / name, link) for name in ("whole", "parts"))
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(other[name], value), name


def test_the_map_is_that_of_the_copy(settings: Callable[..., TrainConfig]) -> None:
    for given, rule in ((), "ends"), (("init.layers=stride",), "stride"):
        assert settings("any", *given).stages["layers"].map == rule  # type: ignore[attr-defined]


def test_masked_input_is_that_of_both(
    encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = student_of(encoder_folder, 2)
    stage = stage_for(model, encoder_folder, masking={"share": 0.5})
    batch, read = batch_for(model), []

    def watched(m: Any, ids: Tensor, *more: Any) -> Any:
        read.append(ids)
        return encode(m, ids, *more)

    for room in ("stages.layers", "targets.live"):
        monkeypatch.setattr(f"mlkd.{room}.encode", watched)
    stage.eval()
    stage.objective(batch)
    stage.objective(batch)
    assert all(torch.equal(ids, read[0]) for ids in read[1:])  # student and target, on dev always
    stage.train()
    for _ in range(2):
        stage.objective(batch)
    assert torch.equal(read[4], read[5])
    assert not torch.equal(read[4], read[6])
    special = torch.tensor(model.tokenizer.all_special_ids)
    for ids in read:
        kept = torch.isin(batch.ids, special)
        assert torch.equal(ids[kept], batch.ids[kept])
        assert (ids == model.tokenizer.mask_token_id).any()


def test_the_shares_of_masked_input() -> None:
    """15 % are chosen; of these 80 % are masked, 10 % another piece, 10 % themselves."""
    ids = torch.full((300, 1000), 7)
    words = torch.ones_like(ids, dtype=torch.bool)
    words[:, 0] = False
    pieces = torch.tensor([8, 9])
    generator = torch.Generator().manual_seed(1)
    found = masked(ids, words, share=0.15, mask_id=3, pieces=pieces, generator=generator)
    assert (found[:, 0] == 7).all()
    shares = {i: float((found[:, 1:] == i).float().mean()) for i in (3, 7, 8, 9)}
    expected = {3: 0.12, 7: 0.865, 8: 0.0075, 9: 0.0075}
    assert shares == pytest.approx(expected, abs=0.002)


def test_masking_without_a_mask_token_and_with_whole_vectors_is_refused(
    encoder_folder: Path,
) -> None:
    model = student_of(encoder_folder, 2)
    with pytest.raises(ValueError, match=r"masking and loss\.pair_mse exclude each other"):
        stage_for(model, encoder_folder, masking={}, loss={"pair_mse": {}})
    settings = stage_for(model, encoder_folder, masking={}).settings
    model.tokenizer.mask_token = None
    with pytest.raises(UserError, match="masking needs a tokenizer with a mask token"):
        LayersStage.more_pieces(settings, model.tokenizer)


def test_masked_text_of_one_language_a_batch_trains_and_goes_on(
    settings: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sentences without translations; the mask token occurs in none of them."""
    from mlkd.recipes.run import run_chain

    for language, texts in (("en", ENGLISH), ("de", GERMAN)):
        lines = [f"{text} {number}\n" for number in range(20) for text in texts]
        (tmp_path / f"text.{language}").write_text("".join(lines), encoding="utf-8")
    read: dict[int, set[str]] = {}

    def look(stage: Stage, batch: PairBatch) -> None:
        assert torch.equal(batch.source, batch.translation)
        pairs = stage.trainer.datamodule._source.pairs  # type: ignore[attr-defined]
        read[stage.global_step] = {pairs.languages[pairs.language[i]] for i in batch.sentences}

    corpus = f"{{text: {{format: text, path: '{tmp_path}/text.{{target}}', targets: [en, de]}}}}"
    more = [
        "data=base", f"+data.corpora={corpus}", "data.root=null", "stage=layers",
        "stages.layers.grouping={by: language, mode: one}", "stages.layers.masking={share: 0.3}",
        "stages.assistant.max_steps=1", "student.bottleneck=null", "init=copy",
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        at_steps(patch, {*range(6)}, look)
        run_chain(settings("whole", *more))
    assert all(len(found) == 1 for found in read.values())
    assert sorted(x for found in read.values() for x in found) == ["de"] * 3 + ["en"] * 3
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    (old,) = (tmp_path / "parts/runs").glob("layers-*")
    shutil.rmtree(old)
    run_until(settings("parts", *more), 3)
    run_chain(settings("parts", *more))
    one, other = (weights(tmp_path / name, "layers") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
