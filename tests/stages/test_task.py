"""An encoder learns from labelled text, and from one that has learned it."""

from __future__ import annotations

import json
import math
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
    Command,
    configure,
    run_until,
    stored_tokens,
    tiny_settings,
    weights,
    write_corpus,
)
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import Tensor

from mlkd.config.labelled import Task
from mlkd.config.schema import TrainConfig
from mlkd.config.stages import known_stages
from mlkd.data.module import PairBatch
from mlkd.encoders.folder import load_folder
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.encoders.head import load_head, save_head
from mlkd.losses.gold import Gold
from mlkd.losses.soft import Soft
from mlkd.output.errors import UserError
from mlkd.stages.task import TaskStage
from mlkd.targets.live import LiveEncoder

LABELS = ("bad", "fair", "good")
HELD = (
    "{kind:classification,split:test,path:'held-{lang}.tsv',languages:[en],labels:[good,fair,bad]}"
)
TEXTS = [*ENGLISH[:3], *GERMAN[:3]]


def test_soft_labels_by_hand() -> None:
    soft = Soft("classification", 2.0)
    assert soft(torch.zeros(4, 3), torch.zeros(4, 3)).item() == pytest.approx(1.0986, abs=1e-4)
    found, wanted = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2 * math.log(3)]])
    # Shares 1/4 and 3/4 at temperature 2, against log shares of 1 and 0; there is no factor 4.
    rest = math.log(1 + math.e)
    assert soft(found, wanted).item() == pytest.approx(0.25 * (rest - 1) + 0.75 * rest)
    assert Soft("similarity", 2.0)(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.8])).item() == (
        pytest.approx((0.25 + 0.04) / 2)
    )


def test_gold_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    loss = Gold("classification")(logits, torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    loss = Gold("similarity")(torch.tensor([1.0, 0.2]), torch.tensor([0.5, 0.2]))
    assert loss.item() == pytest.approx(0.125)


@pytest.mark.parametrize("kind", ["gold", "soft"])
def test_classification_terms_and_their_gradients_are_those_of_a_loop(kind: str) -> None:
    random = torch.Generator().manual_seed(3)
    found, wanted = torch.randn(2, 5, 3, generator=random, dtype=torch.float64)
    value = torch.tensor([0.0, 2.0, 1.0, 1.0, 2.0])
    one, other = (found.clone().requires_grad_() for _ in range(2))
    parts = []
    for row in range(5):
        if kind == "gold":
            parts.append(-torch.log(other[row].exp()[int(value[row])] / other[row].exp().sum()))
            continue
        theirs, mine = (wanted[row] / 1.5).exp(), (other[row] / 1.5).exp()
        for c in range(3):
            parts.append(-theirs[c] / theirs.sum() * torch.log(mine[c] / mine.sum()))
    looped = torch.stack(parts).sum() / 5
    ours = Gold("classification")(one, value)
    if kind == "soft":
        ours = Soft("classification", 1.5)(one, wanted)
    assert torch.allclose(ours, looped, rtol=1e-12)
    for loss in (ours, looped):
        loss.backward()
    assert torch.allclose(one.grad, other.grad, rtol=1e-10)  # type: ignore[arg-type]


def write_head(folder: Path, width: int = 16, labels: tuple[str, ...] = LABELS) -> Path:
    folder.mkdir()
    random = torch.Generator().manual_seed(11)
    weight, bias = torch.randn(len(labels), width, generator=random), torch.ones(len(labels))
    save_head(weight, bias, labels, folder)
    return folder


def stage_for(encoder: Path, task: Task, head: Path | None = None, **more: Any) -> TaskStage:
    """A stage whose target, where there is one, is another encoder with the same tokens."""
    inputs = {"start": "student"} | ({"target": "a"} if "soft" in more.get("loss", {}) else {})
    inputs |= {"target_head": "a.head"} if head else {}
    link = {"stage": "task", "inputs": inputs, "epochs": 1, "batch_size": 3, "lr": 0.01}
    settings = known_stages()["task"].model_validate(link | more)
    torch.manual_seed(4)
    model, live = load_folder(encoder), {}
    if "target" in inputs:
        target = FrozenEncoder.open(encoder, max_tokens=16)
        torch.nn.init.normal_(target.model[0].auto_model.encoder.layer[1].output.dense.weight)
        live = {"target": LiveEncoder.of(target, model.tokenizer)}
    return TaskStage(model, settings, 10, live, {"target_head": head} if head else {}, task)


def batch_for(model: SentenceTransformer, kind: str) -> PairBatch:
    """Three rows: pairs over six sentences, or three texts."""
    classifies = kind == "classification"
    texts = TEXTS[:3] if classifies else TEXTS
    ids, mask = map(torch.from_numpy, stored_tokens(model, texts).padded(np.arange(len(texts))))
    first, none = torch.arange(3), torch.zeros(3, dtype=torch.long)
    second = first if classifies else torch.tensor([5, 3, 4])
    value = torch.tensor([2.0, 0.0, 1.0]) if classifies else torch.tensor([0.9, 0.1, 0.4])
    return PairBatch(
        ids, mask, torch.arange(len(texts)), first, second, None, None, none, none, value
    )


def own_vectors(model: SentenceTransformer, texts: list[str]) -> list[Tensor]:
    """Of each sentence alone, from the model's own forward."""
    rows = [model.tokenizer(x, truncation=True, max_length=16, return_tensors="pt") for x in texts]
    return [model(dict(row))["sentence_embedding"][0] for row in rows]


@pytest.mark.parametrize("kind", ["classification", "similarity"])
def test_the_loss_and_its_gradients_are_those_of_a_loop_over_rows(
    encoder_folder: Path, tmp_path: Path, kind: str
) -> None:
    classifies = kind == "classification"
    task = Task(kind, LABELS if classifies else ())  # type: ignore[arg-type]
    head = write_head(tmp_path / "head") if classifies else None
    loss = {"gold": {"weight": 3.0}, "soft": {"weight": 0.5, "temperature": 2.0}}
    stage = stage_for(encoder_folder, task, head, loss=loss)
    batch = batch_for(stage.model, kind)
    output = stage.objective(batch)
    output.loss.backward()
    ours = {name: p.grad for name, p in stage.named_parameters()}
    stage.zero_grad(set_to_none=True)

    target = stage.live["target"].encoder.model
    mine, theirs = own_vectors(stage.model, TEXTS), own_vectors(target, TEXTS)
    assert batch.value is not None
    gold, soft = [], []
    for row in range(3):
        if head is not None and stage.head is not None:
            known = load_file(head / "head.safetensors")
            one, two = (v[row] / v[row].norm() for v in (mine, theirs))
            logits = stage.head(one)
            gold.append(-logits.log_softmax(0)[int(batch.value[row])])
            aim = (known["weight"] @ two + known["bias"]).div(2).softmax(0).detach()
            soft.append(-(aim * logits.div(2).log_softmax(0)).sum())
        else:
            other = int(batch.translation[row])
            one, two = (v[row] @ v[other] / v[row].norm() / v[other].norm() for v in (mine, theirs))
            gold.append((one - batch.value[row]).square())
            soft.append((one - two.detach()).square())
    terms = {"gold": torch.stack(gold).mean(), "soft": torch.stack(soft).mean()}
    for name, value in terms.items():
        assert value.item() > 1e-3
        torch.testing.assert_close(output.logs[name], value.detach(), rtol=1e-4, atol=1e-6)
    (3 * terms["gold"] + 0.5 * terms["soft"]).backward()
    assert all(p.grad is None for p in target.parameters())
    assert (stage.head is None) == (kind == "similarity")
    for name, p in stage.named_parameters():
        if p.grad is None:  # a pooler, which mean pooling does not read
            assert ours[name] is None, name
        else:
            torch.testing.assert_close(ours[name], p.grad, rtol=1e-3, atol=1e-5)


def test_layers_may_aim_at_those_of_the_target(encoder_folder: Path) -> None:
    loss = {"soft": {}, "hidden": {"weight": 0.1}, "attention": {"weight": 2.0}}
    stage = stage_for(encoder_folder, Task("similarity"), loss=loss, map="ends")
    output = stage.objective(batch_for(stage.model, "similarity"))
    assert min(output.logs[name].item() for name in ("hidden", "attention")) > 1e-4
    logs = output.logs
    whole = logs["gold"] + logs["soft"] + 0.1 * logs["hidden"] + 2 * logs["attention"]
    torch.testing.assert_close(output.loss.detach(), whole)


def test_the_head_begins_as_the_seed_says_and_learns_at_its_own_rate(encoder_folder: Path) -> None:
    task = Task("classification", LABELS)
    one, other = (stage_for(encoder_folder, task) for _ in range(2))
    assert one.head is not None and other.head is not None
    assert torch.equal(one.head.weight, other.head.weight) and one.head.weight.any()
    groups = one.parameter_groups()
    assert [group.rate for group in groups] == [1.0, 10.0]
    assert {id(p) for p in groups[1].parameters} == {id(p) for p in one.head.parameters()}
    assert not any(name.startswith("score") for name in one.state_dict())
    assert stage_for(encoder_folder, Task("similarity")).head is None


@pytest.mark.parametrize("kind", ["classification", "similarity"])
def test_dev_scores_are_those_of_all_rows_together(encoder_folder: Path, kind: str) -> None:
    from scipy.stats import spearmanr

    task = Task(kind, LABELS if kind == "classification" else ())  # type: ignore[arg-type]
    stage = stage_for(encoder_folder, task)
    logged: dict[str, float] = {}
    stage.log_dict = lambda values, **_: logged.update(values)  # type: ignore[assignment, method-assign]
    stage.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[assignment, method-assign]
    stage.eval()
    batch, found = batch_for(stage.model, kind), []
    for turn in range(2):
        assert batch.value is not None
        if turn:
            batch.source = batch.source.flip(0)
        with torch.no_grad():
            found.append(stage.scores(stage.encode(batch.ids, batch.mask), batch))
            stage.validation_step(batch, turn)
    stage.on_validation_epoch_end()
    scores, gold = torch.cat(found), batch.value.repeat(2)  # type: ignore[union-attr]
    if kind == "classification":
        assert logged["dev/accuracy"] == pytest.approx((scores.argmax(1) == gold).double().mean())
        assert (stage.selects, stage.selects_largest) == ("dev/accuracy", True)
    else:
        assert logged["dev/spearman"] == pytest.approx(spearmanr(scores, gold)[0], abs=1e-6)
    assert {"dev/loss", "dev/gold"} < logged.keys()
    batch.value = found[1].argmax(1).float() if kind == "classification" else found[1]
    stage.validation_step(batch, 0)
    stage.on_validation_epoch_end()  # of these rows alone
    score = "dev/accuracy" if kind == "classification" else "dev/spearman"
    assert logged[score] == pytest.approx(1.0, abs=1e-5)
    by_loss = stage_for(encoder_folder, task, select="loss")
    assert (by_loss.selects, by_loss.selects_largest) == ("dev/loss", False)


def test_what_a_task_reads_and_hands_over(encoder_folder: Path, tmp_path: Path) -> None:
    head = write_head(tmp_path / "given")
    stage = stage_for(encoder_folder, Task("classification", LABELS), head, loss={"soft": {}})
    assert stage.signals(stage.settings).live == {"target"}
    assert stage.may_collapse
    assert stage.outputs().keys() == {"head"}
    (tmp_path / "head").mkdir()
    stage.outputs()["head"](tmp_path / "head")
    assert stage.head is not None
    assert load_head(tmp_path / "head", 16).labels == LABELS
    stage = stage_for(encoder_folder, Task("similarity"))
    assert stage.signals(stage.settings).live == set()
    assert not stage.may_collapse
    assert stage.outputs() == {}


def test_a_head_that_does_not_fit_is_refused(encoder_folder: Path, tmp_path: Path) -> None:
    task, soft = Task("classification", LABELS), {"soft": {}}
    wide = write_head(tmp_path / "wide", width=8)
    with pytest.raises(UserError, match="wide: a head for vectors of width 8, not 16"):
        stage_for(encoder_folder, task, wide, loss=soft)
    other = write_head(tmp_path / "other", labels=("good", "bad", "fair"))
    with pytest.raises(UserError, match="other: its labels are good, bad, fair, those of"):
        stage_for(encoder_folder, task, other, loss=soft)
    for name, content in (("head.json", '{"labels": ["a"]}'), ("head.safetensors", "no weights")):
        damaged = write_head(tmp_path / f"of {name}")
        (damaged / name).write_text(content)
        with pytest.raises(UserError, match="no head of a classification"):
            load_head(damaged, 16)
    for key, names in (("labels", "a b a"), ("domains", "x x")):
        folder, labels = tmp_path / key, ("a", "b", "c")
        folder.mkdir()
        save_head(torch.ones(2, 3, 16), torch.ones(2, 3), labels, folder, ["x", "y"])
        words = json.loads((folder / "head.json").read_text()) | {key: names.split()}
        (folder / "head.json").write_text(json.dumps(words))
        with pytest.raises(UserError, match=f"no head of a classification .*'{names[0]}' is named"):
            load_head(folder, 16)
    with pytest.raises(UserError, match="nowhere: no head of a classification"):
        load_head(tmp_path / "nowhere", 16)


@pytest.fixture
def settings(
    encoder_folder: Path, finished_assistant: Path, tmp_path: Path
) -> Callable[..., TrainConfig]:
    """Chains of ``recipe=task`` whose assistant is finished, with three classes of texts."""
    corpus = write_corpus(tmp_path / "corpus")
    lines = [f"{t} {i}\t{LABELS[n % 3]}\n" for i in range(12) for n, t in enumerate(ENGLISH)]
    (corpus / "labels.tsv").write_text("".join(lines), encoding="utf-8")

    def build(name: str, *overrides: str) -> TrainConfig:
        output = tmp_path / name
        if not output.exists():
            shutil.copytree(finished_assistant, output)
        given = tiny_settings(encoder_folder, corpus, output)
        known = [x for x in given if not x.startswith("stages.") or x.startswith("stages.assist")]
        text = "{kind:classification,format:tsv,path:labels.tsv,labels:[bad,fair,good]}"
        sizes = ("max_steps=6", "epochs=9999", "batch_size=16", "lr=0.01")
        links = [f"stages.task.{size}" for size in sizes]
        # The order of the labels is another one than the head's.
        (corpus / "held-en.tsv").write_text("".join(f"{t} x\t{LABELS[0]}\n" for t in ENGLISH))
        known.append(f"+eval.sets.held={HELD}")
        return configure(
            "recipe=task", *known, f"+data.labelled.reviews={text}", *links, *overrides
        )

    return build


def record_of(output: Path) -> tuple[Path, dict[str, Any]]:
    (folder,) = (output / "runs").glob("task-*")
    return folder, json.loads((folder / "run.json").read_text())


@pytest.mark.slow
def test_it_goes_on_where_it_was_killed_and_keeps_the_best_encoder_and_head(
    settings: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain
    from mlkd.training.best import KeepBest

    seen: dict[int, dict[str, Tensor]] = {}
    original = KeepBest.on_validation_end

    def watched(self: KeepBest, trainer: Any, module: Any) -> None:
        seen[trainer.global_step] = {k: v.clone() for k, v in module.state_dict().items()}
        original(self, trainer, module)

    monkeypatch.setattr(KeepBest, "on_validation_end", watched)
    config = settings("whole")
    # What is learned is wrong for the dev texts: the first weights are the best.
    turned = [
        f"{t} dev {i}\t{LABELS[(n + 1) % 3]}\n" for i in range(5) for n, t in enumerate(ENGLISH)
    ]
    Path(str(config.data.root), "turned.tsv").write_text("".join(turned))
    more = ["stages.task.dropout=0.1", "+data.labelled.reviews.dev_path=turned.tsv"]
    run_chain(settings("whole", *more))
    folder, record = record_of(tmp_path / "whole")
    assert sorted(record["outputs"]) == ["head", "student"]
    curve, best = record["training"]["curve"], record["training"]["best"]
    assert best["dev/accuracy"] == max(point["dev/accuracy"] for point in curve)
    assert best["step"] < 6  # so that something is restored
    kept = seen[int(best["step"])]
    weights_seen = [state["head.weight"] for state in seen.values()]
    assert sum(torch.equal(kept["head.weight"], weight) for weight in weights_seen) == 1
    head = load_head(folder / "head", 16)
    assert torch.equal(head.weight, kept["head.weight"]) and head.labels == LABELS
    student = load_folder(folder / "student")
    vectors = torch.tensor(student.encode(ENGLISH, batch_size=1))
    directions = vectors / vectors.norm(dim=1, keepdim=True)
    assert (vectors.norm(dim=1) > 2).all()  # of this encoder; an export gives unit vectors
    logits = torch.nn.functional.linear(directions, kept["head.weight"], kept["head.bias"])
    torch.testing.assert_close(head.logits(vectors), logits)
    torch.testing.assert_close(head.logits(3 * vectors), head.logits(vectors))

    scores = record["metrics"]["scores"]["sets"]["held"]["pairs"]["en-en"]
    named = head.named(student.encode([f"{text} x" for text in ENGLISH]))
    assert scores["accuracy"] == pytest.approx(100 * named.count("bad") / 6)
    assert "held" not in record["references"]["assistant"]["scores"]["sets"]

    run_until(settings("parts", *more), 3)
    (stopped,) = (tmp_path / "parts/runs").glob("task-*")
    assert (stopped / "last.ckpt").is_file()
    run_chain(settings("parts", *more))
    again, resumed = record_of(tmp_path / "parts")
    assert resumed["training"]["curve"] == curve
    one, other = (weights(tmp_path / name, "task") for name in ("whole", "parts"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert (again / "head/head.safetensors").read_bytes() == (
        folder / "head/head.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_a_run_or_a_student_with_a_head_is_evaluated(
    settings: Callable[..., TrainConfig], tmp_path: Path, command: Command
) -> None:
    from mlkd.recipes.run import run_chain

    config = settings("out")
    run_chain(config)
    folder, record = record_of(tmp_path / "out")
    known = record["metrics"]["scores"]["sets"]["held"]
    words = [
        *("eval=base", f"eval.root={tmp_path / 'corpus'}", "eval.bootstrap=0", "max_tokens=16"),
        f"+eval.sets.held={HELD}",
        f"+teacher={{path:{config.teacher.path}}}",
    ]
    copy = shutil.copytree(folder / "student", tmp_path / "copy")
    for number, given in enumerate(
        ([f"model={folder}"], [f"model={copy}", f"head={folder / 'head'}"])
    ):
        done = command("mlkd.evaluate", *given, *words, f"output={tmp_path}/{number}.json")
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / f"{number}.json").read_text())
        assert found["scores"]["sets"]["held"] == known and found["not_scored"] == []
        assert found["head"]["folder"] == str(folder / "head")
    done = command("mlkd.evaluate", f"model={copy}", *words, f"output={tmp_path}/none.json")
    assert "warning: held: not scored, a classification needs a head" in done.stderr
    damaged = command("mlkd.evaluate", f"model={copy}", f"head={copy}", *words)
    assert damaged.returncode == 2 and "no head of a classification" in damaged.stderr


def test_labelled_text_decides_the_links_that_read_it_and_no_other(
    settings: Callable[..., TrainConfig],
) -> None:
    from mlkd.recipes.identity import BySettings, identity
    from mlkd.recipes.recipe import links

    def parts(*overrides: str) -> list[dict[str, Any]]:
        config = settings("any", *overrides)
        return [identity(config, link, BySettings(config)) for link in links(config)]

    usual = parts()
    more = "+data.labelled.other={kind:similarity,format:tsv,path:x}"
    assert parts(more, "stages.task.labelled=[reviews]")[1]["pairs"] == usual[1]["pairs"]
    for change in ("data.labelled.reviews.path=x.tsv", "data.labelled.reviews.labels=[a,b]"):
        changed = parts(change)
        assert changed[0] == usual[0] and changed[1] != usual[1]
    assert parts("+data.labelled.reviews.domain=books") == usual
    grouped = "stages.task.grouping={by: domain, mode: one}"
    assert parts(grouped) != parts(grouped, "+data.labelled.reviews.domain=books")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["~data.labelled.reviews"], "stages.task: data.labelled is empty"),
        (["stages.task.labelled=[no]"], "labelled: no no in data.labelled; it has reviews"),
        (["stages.task.loss.soft={}"], "need inputs.target"),
        (["+stages.task.inputs.target=assistant"], "inputs.target is not read"),
        (
            ["+stages.task.inputs.target=assistant", "stages.task.loss.soft={}"],
            "loss.soft needs inputs.target_head, as <link>.head",
        ),
        (["stages.task.map=ends"], "map goes with loss.hidden or loss.attention"),
        (["stages.task.loss.gold=null"], "give at least one of gold, soft"),
        (["+stages.task.inputs.teacher=base"], "the stage task reads: start, target, target_head"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    settings: Callable[..., TrainConfig], overrides: list[str], words: str
) -> None:
    from mlkd.recipes.recipe import links

    with pytest.raises(UserError) as caught:
        links(settings("any", *overrides))
    assert words in str(caught.value) and "\n" not in str(caught.value)
