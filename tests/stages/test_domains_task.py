"""Labelled text of several domains: a head for each, and the errors count by ratios."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ENGLISH, GERMAN, Command, configure, stored_tokens, tiny_settings, write_corpus
from torch import Tensor, nn

from mlkd.config.commands import EvaluateConfig
from mlkd.config.labelled import Task
from mlkd.config.schema import TrainConfig
from mlkd.config.stages import known_stages
from mlkd.data.module import PairBatch
from mlkd.deploy.judge import judge
from mlkd.encoders.folder import load_folder
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.encoders.head import load_head, save_head
from mlkd.output.errors import UserError
from mlkd.recipes.chain import open_chain
from mlkd.recipes.early import check_early
from mlkd.stages import stage_of
from mlkd.stages.virtual import halves
from mlkd.targets.live import LiveEncoder

LABELS = ("bad", "fair", "good")
CLASSES, GRADED = Task("classification", LABELS), Task("similarity")
DOMAIN = [0, 1, 0, 1, 1, 0]
NAMES = ["books", "music"]
LOSS: dict[str, Any] = {
    "hidden": {"weight": 0.5}, "attention": {"weight": 20.0}, "soft": {"weight": 3.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def parts(encoder_folder: Path) -> tuple[Any, LiveEncoder]:
    """A student, and a target with the same tokens and other weights."""
    student = load_folder(encoder_folder)
    target = FrozenEncoder.open(encoder_folder, max_tokens=16)
    torch.manual_seed(1)
    nn.init.normal_(target.model[0].auto_model.encoder.layer[1].output.dense.weight)
    return student, LiveEncoder.of(target, student.tokenizer)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the target: one for text of any domain, another for music."""
    folder = tmp_path_factory.mktemp("head")
    random = torch.Generator().manual_seed(11)
    weight, bias = torch.randn(1, 3, 16, generator=random), torch.ones(1, 3)
    save_head(weight, bias, LABELS, folder, ["music"])
    known = load_head(folder, 16)
    torch.testing.assert_close(known.weight, known.domains["music"].weight)
    return folder


def stage_for(parts: Any, task: Task, head: Path, stage: str = "domains_task", **more: Any) -> Any:
    model, live = parts
    names = more.pop("names", NAMES)
    inputs = {"start": "student", "target": "a"}
    folders = {}
    if task is CLASSES:
        inputs["target_head"], folders = "a.head", {"target_head": head}
    link = {"stage": stage, "inputs": inputs, "epochs": 1, "batch_size": 6, "lr": 0.01}
    loss = LOSS | ({"gold": None} if stage == "task" else {})
    settings = known_stages()[stage].model_validate(link | {"map": "ends", "loss": loss} | more)
    torch.manual_seed(3)
    made = stage_of(settings)(model, settings, 10, {"target": live}, folders, task, names)
    made.zero_grad(set_to_none=True)
    return made


def batch_for(model: Any, task: Task, domain: list[int]) -> PairBatch:
    """Six texts with classes, or six graded pairs."""
    classifies = task is CLASSES
    texts = ENGLISH[:6] if classifies else [*ENGLISH[:6], *GERMAN[:6]]
    ids, mask = map(torch.from_numpy, stored_tokens(model, texts).padded(np.arange(len(texts))))
    first = torch.arange(6)
    value = torch.tensor([0.0, 2, 1, 1, 0, 2]) if classifies else torch.linspace(0, 1, 6)
    second = first if classifies else first + 6
    return PairBatch(
        ids, mask, torch.arange(len(texts)), first, second, None, None, torch.arange(6),
        torch.tensor(domain), value,
    )  # fmt: skip


def part_of(batch: PairBatch, chosen: list[int]) -> PairBatch:
    """Some rows; texts of others stay out."""
    rows = sorted({*batch.source[chosen].tolist(), *batch.translation[chosen].tolist()})
    place = {row: number for number, row in enumerate(rows)}
    sides = [torch.tensor([place[row] for row in side[chosen].tolist()])
             for side in (batch.source, batch.translation)]  # fmt: skip
    assert batch.value is not None
    return PairBatch(
        batch.ids[rows], batch.mask[rows], batch.sentences[rows], *sides, None, None,
        batch.pairs[chosen], batch.domain[chosen], batch.value[chosen],
    )  # fmt: skip


def gradients(stage: Any, loss: Tensor) -> dict[str, Tensor]:
    stage.zero_grad(set_to_none=True)
    loss.backward()
    return {n: p.grad.clone() for n, p in stage.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("task", [CLASSES, GRADED], ids=lambda task: task.kind)
@pytest.mark.parametrize("terms", [("hidden", "attention", "soft"), ("soft",)], ids="-".join)
def test_even_ratios_give_the_mean_over_domains_of_the_loss_of_a_task(
    parts: Any, head: Path, task: Task, terms: tuple[str, ...]
) -> None:
    """Each domain as the stage ``task`` has it, with the domain's own heads on both sides."""
    loss = {name: LOSS[name] if name in terms else None for name in LOSS}
    stage = stage_for(parts, task, head, graph=None, loss=loss)
    batch = batch_for(parts[0], task, DOMAIN)
    output = stage.objective(batch)
    assert output.logs.keys() == set(terms)
    found = gradients(stage, output.loss)
    losses, expected, heads = [], dict[str, Tensor](), []
    for number, name in enumerate(NAMES):
        one_map = {} if "hidden" in terms else {"map": None}
        plain = stage_for(parts, task, head, "task", loss=loss | {"gold": None}, **one_map)
        if stage.heads is not None:
            rows = slice(3 * number, 3 * number + 3)
            plain.head.weight.data = stage.heads.weight.data[rows].clone()
            plain.head.bias.data = stage.heads.bias.data[rows].clone()
            plain._target_head = load_head(head, 16).of(name)
        own = [n for n in range(6) if DOMAIN[n] == number]
        one = plain.objective(part_of(batch, own))
        losses.append(one.loss.detach())
        mine = gradients(plain, one.loss / 2)
        heads.append([mine.pop(f"head.{n}", torch.empty(0)) for n in ("weight", "bias")])
        for key, gradient in mine.items():
            expected[key] = expected.get(key, torch.zeros(())) + gradient
    torch.testing.assert_close(output.loss.detach(), torch.stack(losses).mean(), rtol=1e-5, atol=0)
    if task is CLASSES:
        for key, shares in zip(("weight", "bias"), zip(*heads, strict=True), strict=True):
            expected[f"heads.{key}"] = torch.cat(shares)
        assert expected["heads.weight"].abs().min() > 0
    assert found.keys() == expected.keys() and len(found) > 20
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-6)


def test_the_head_of_the_target_is_that_of_the_domain(parts: Any, tmp_path: Path) -> None:
    batch = batch_for(parts[0], CLASSES, DOMAIN)
    random = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(2, 3, 16, generator=random), torch.randn(2, 3, generator=random)
    save_head(weight, bias, LABELS, tmp_path, ["music", "film"])
    stage, vectors = stage_for(parts, CLASSES, tmp_path), torch.randn(6, 16, generator=random)
    aims = stage._aimed_at(vectors, batch)
    for row, number in enumerate(DOMAIN):
        own = (weight[0], bias[0]) if number else (weight.mean(0), bias.mean(0))
        direction = vectors[row] / vectors[row].norm()
        torch.testing.assert_close(aims[row], own[0] @ direction + own[1])


def test_dev_has_the_accuracy_of_each_domain_and_their_mean_selects(parts: Any, head: Path) -> None:
    batch = batch_for(parts[0], CLASSES, [0, 1, 1, 1, 1, 1])
    stage, logged = stage_for(parts, CLASSES, head, names=[*NAMES, "none here"]), {}
    stage.log_dict = logged.update
    stage.log = lambda name, value: logged.update({name: value})
    stage.eval()
    with torch.no_grad():
        for chosen in ([0, 1, 2], [3, 4, 5]):
            stage.validation_step(part_of(batch, chosen), 0)
        named = stage.scores(stage.encode(batch.ids, batch.mask), batch).argmax(1)
    stage.on_validation_epoch_end()
    hits = (named == batch.value).float()
    assert 0 < hits.sum() < 6
    shares = hits[0].item(), hits[1:].mean().item()
    assert logged["dev/accuracy/books"] == pytest.approx(shares[0])
    assert logged["dev/accuracy/music"] == pytest.approx(shares[1])
    assert logged["dev/accuracy"] == pytest.approx(sum(shares) / 2)
    assert not [name for name in logged if name.startswith("dev/") and "none here" in name]
    assert {"dev/loss", "dev/soft", "dev/soft/books", "dev/hidden"} < logged.keys()
    assert (stage.selects, stage.selects_largest) == ("dev/accuracy", True)
    graded = stage_for(parts, GRADED, head)
    assert (graded.selects, graded.heads) == ("dev/loss", None)


def test_a_single_text_is_a_domain_like_any_other(parts: Any, head: Path) -> None:
    """Also where no layers are compared, whose tokens are many."""
    names, loss = [*NAMES, "none here"], {"hidden": None, "attention": None}
    stage = stage_for(parts, CLASSES, head, names=names, graph=None, loss=loss)
    ratios = stage._ratios(stage.sums(batch_for(parts[0], CLASSES, [0, 1, 1, 1, 1, 1])))
    assert ratios.tolist() == [[0.5, 0.5, 0.0]] * len(ratios)


def test_by_turns_heads_learn_with_the_student(parts: Any, head: Path) -> None:
    """In the graph's steps they take the step that is tried, and stay."""
    batch = batch_for(parts[0], CLASSES, DOMAIN)
    stage = stage_for(parts, CLASSES, head, graph={"update": "alternate", "mix": 0.0})
    groups = stage.parameter_groups()
    own = {id(p) for p in stage.heads.parameters()}
    (group,) = [g for g in groups if {id(p) for p in g.parameters} == own]
    assert group.rate == 10.0 and group.turn(0) and not group.turn(1)
    assert {id(p) for g in groups for p in g.parameters} == {id(p) for p in stage.parameters()}
    before = {n: p.detach().clone() for n, p in stage.named_parameters()}
    seen, held = halves(batch)
    assert torch.equal(held.value, batch.value[held.pairs])
    output = stage.graph_objective(batch, 0.1)
    moved = gradients(stage, output.loss)
    assert moved and all(name.startswith("graph") for name in moved)
    step = gradients(stage, stage.objective(seen).loss)
    even = stage_for(parts, CLASSES, head, graph=None)
    even.load_state_dict({n: p for n, p in before.items() if not n.startswith("graph.")})
    with torch.no_grad():
        for name, p in even.named_parameters():
            p -= 0.1 * step.get(name, torch.tensor(0.0))
        expected = even.objective(held).loss
        for name, p in stage.named_parameters():
            p.copy_(before[name])
    torch.testing.assert_close(output.loss, expected, rtol=1e-4, atol=0)


def test_heads_of_domains_are_one_file(tmp_path: Path) -> None:
    weight, bias = torch.randn(2, 3, 4), torch.randn(2, 3)
    save_head(weight, bias, LABELS, tmp_path, NAMES)
    found = load_head(tmp_path, 4)
    assert (found.labels, [*found.domains]) == (LABELS, NAMES)
    for number, name in enumerate(NAMES):
        own = found.of(name)
        assert torch.equal(own.weight, weight[number]) and torch.equal(own.bias, bias[number])
    for name in (None, "film"):
        torch.testing.assert_close(found.of(name).weight, weight.mean(0))
    words = json.loads((tmp_path / "head.json").read_text())
    for domains in (["books"], ["books", 1], "ab"):
        (tmp_path / "head.json").write_text(json.dumps(words | {"domains": domains}))
        with pytest.raises(UserError, match="no head of a classification"):
            load_head(tmp_path, 4)


@pytest.fixture
def settings(
    encoder_folder: Path, finished_assistant: Path, tmp_path: Path
) -> Callable[..., TrainConfig]:
    """Chains of ``recipe=hrkd_task`` with two domains, in which classes are the other way round."""
    corpus = write_corpus(tmp_path / "corpus")
    for shift, name in enumerate(NAMES):
        for split, count in (("train", 12), ("test", 2)):
            lines = [f"{name} {split} {t} {i}\t{LABELS[(n + shift) % 3]}\n"
                     for i in range(count) for n, t in enumerate(ENGLISH)]  # fmt: skip
            (corpus / f"{name}-{split}.tsv").write_text("".join(lines), encoding="utf-8")

    def build(*overrides: str) -> TrainConfig:
        if not (tmp_path / "out").exists():
            shutil.copytree(finished_assistant, tmp_path / "out")
        given = tiny_settings(encoder_folder, corpus, tmp_path / "out")
        known = [x for x in given if not x.startswith("stages.") or x.startswith("stages.assist")]
        sizes = ("max_steps=6", "epochs=9999", "batch_size=16", "lr=0.01")
        known += [f"stages.{link}.{size}" for link in ("task", "domains") for size in sizes]
        labels = "labels:[bad,fair,good]"
        for name in NAMES:
            text = f"kind:classification,format:tsv,path:{name}-train.tsv,{labels},domain:{name}"
            held = f"kind:classification,split:test,path:{name}-test.tsv,languages:[en],{labels}"
            known.append(f"+data.labelled.{name}={{{text}}}")
            known += [f"+eval.sets.{name}={{{held},domain:{name}}}"]
            known += [f"+eval.sets.all_{name}={{{held}}}"]
        return configure("recipe=hrkd_task", *known, *overrides)

    return build


def test_a_chain_hands_over_a_head_a_domain_which_scores_its_sets(
    settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    run_chain(settings())
    (folder,) = (tmp_path / "out/runs").glob("domains-*")
    record = json.loads((folder / "run.json").read_text())
    assert sorted(record["outputs"]) == ["domain_weights", "head", "student"]
    curve, best = record["training"]["curve"], record["training"]["best"]
    assert best["dev/accuracy"] == max(point["dev/accuracy"] for point in curve)
    head, student = load_head(folder / "head", 16), load_folder(folder / "student")
    assert [*head.domains] == NAMES
    sets = record["metrics"]["scores"]["sets"]
    for shift, name in enumerate(NAMES):
        texts = [f"{name} test {t} {i}" for i in range(2) for t in ENGLISH]
        gold = [LABELS[(n + shift) % 3] for _ in range(2) for n in range(len(ENGLISH))]
        vectors = student.encode(texts)
        for chosen, domain in ((name, name), (f"all_{name}", None)):
            named = head.of(domain).named(vectors)
            right = sum(one == other for one, other in zip(named, gold, strict=True))
            found = sets[chosen]["pairs"]["en-en"]["accuracy"]
            assert found == pytest.approx(100 * right / len(gold))
    with (folder / "domain_weights/ratios.csv").open(encoding="utf-8") as file:
        assert {row["domain"] for row in csv.DictReader(file)} == set(NAMES)

    wrong = settings("eval.sets.books.domain=boks").eval
    asked = EvaluateConfig.model_validate({"model": str(folder), "eval": wrong.model_dump()})
    with pytest.raises(UserError) as caught:
        judge(asked, write=False)
    assert str(caught.value) == (
        "eval.sets.books.domain=boks: the head knows no such domain; allowed: books, music, or null"
    )


def test_a_domain_that_no_text_is_of_is_refused(settings: Callable[..., TrainConfig]) -> None:
    message = (
        "eval.sets.books.domain=boks: no labelled text is of this domain; allowed: books, music, "
        "or null"
    )
    wrong = settings("eval.sets.books.domain=boks")
    with pytest.raises(UserError) as caught:
        check_early(wrong)
    assert str(caught.value) == message
    check_early(settings("stages.domains.labelled=[music]"))  # books is one of the others
    by_language = settings("eval.sets.books.domain=de", "stages.domains.grouping.by=language")
    check_early(by_language)

    file = Path(wrong.data.root or "", "topics.tsv")
    rows = [f"text {i}\t{LABELS[i % 3]}\t{NAMES[i % 2]}\n" for i in range(60)]
    file.write_text("".join(rows), encoding="utf-8")
    column = [
        "~data.labelled.books", "~data.labelled.music",
        "+data.labelled.all={kind:classification,format:tsv,path:topics.tsv,columns:[0,1],"
        "domain_column:2,labels:[bad,fair,good],domain:music}",
    ]  # fmt: skip
    wrong = settings("eval.sets.books.domain=boks", *column)
    check_early(wrong)  # nothing is read yet
    with pytest.raises(UserError) as caught:
        open_chain(wrong)
    assert str(caught.value) == message.replace("books, music", "music, books")
    open_chain(settings(*column))


def test_domains_of_labelled_text_decide_the_link_that_reads_them(
    settings: Callable[..., TrainConfig],
) -> None:
    from mlkd.recipes.identity import BySettings, identity
    from mlkd.recipes.recipe import links

    def names(*overrides: str) -> dict[str, Any]:
        config = settings(*overrides)
        by = BySettings(config)
        return {link.name: identity(config, link, by) for link in links(config)}

    usual, other = names(), names("data.labelled.books.domain=film")
    assert usual["assistant"] == other["assistant"] and usual["task"] == other["task"]
    assert usual["domains"] != other["domains"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["~stages.domains.inputs.target_head"], "loss.soft needs inputs.target_head"),
        (["stages.domains.labelled=[film]"], "labelled: no film in data.labelled; it has"),
        (["~stages.domains.inputs.target"], "the stage domains_task reads: start, target"),
        (
            ["stages.domains.loss.hidden=null", "stages.domains.loss.attention=null"],
            "graph weighs loss.hidden and loss.attention; give one, or graph: null",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    settings: Callable[..., TrainConfig], overrides: list[str], words: str
) -> None:
    from mlkd.recipes.recipe import links

    with pytest.raises(UserError) as caught:
        links(settings(*overrides))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(900)
def test_the_recipe_runs_on_the_embedded_requests(command: Command, tmp_path: Path) -> None:
    done = command(
        "mlkd.train", "recipe=hrkd_task", "eval=demo_domains", "debug=tiny", "trainer.threads=1",
        f"output_dir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = [path.name.split("-")[0] for path in sorted(tmp_path.glob("runs/*-*"))]
    assert names == ["assistant", "domains", "task"]
    (folder,) = tmp_path.glob("runs/domains-*")
    record = json.loads((folder / "run.json").read_text())
    sets = {name for name, one in record["metrics"]["scores"]["sets"].items()
            if one["kind"] == "classification"}  # fmt: skip
    assert sets == {"english_dev", "english_test", "german_dev", "german_test"}
