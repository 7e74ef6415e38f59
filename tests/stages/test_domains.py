"""Layers and domains count by ratios: the loss, what is learned when, what is handed over."""

from __future__ import annotations

import copy
import csv
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import (
    ENGLISH,
    GERMAN,
    Command,
    configure,
    run_until,
    stored_tokens,
    take_steps,
    tiny_settings,
    weights,
    write_corpus,
)
from lightning import Callback
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from torch import Tensor

from mlkd.config.schema import TrainConfig
from mlkd.config.stages import known_stages
from mlkd.config.student import InitConfig, StudentConfig
from mlkd.data.module import PairBatch
from mlkd.data.pairs import prepare_pairs
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.encoders.folder import load_folder
from mlkd.encoders.forward import Taps, encode
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.losses.attention import AttentionMSE
from mlkd.losses.domain_sums import means
from mlkd.losses.hidden import HiddenMSE
from mlkd.output.errors import UserError
from mlkd.stages import stage_of
from mlkd.stages.domains import DomainsStage
from mlkd.stages.signals import Signals, Vectors
from mlkd.stages.virtual import halves, response
from mlkd.student.initialise import build_student
from mlkd.targets.live import LiveEncoder
from mlkd.training.reads import Reads

DOMAIN = [0, 1, 2, 0, 1, 2]  # of each pair
LOSS = {"hidden": {"weight": 0.5}, "attention": {"weight": 20.0}, "pair_mse": {"weight": 2.0}}


@pytest.fixture(scope="module")
def parts(encoder_folder: Path) -> tuple[SentenceTransformer, LiveEncoder]:
    """A student of two layers, and what it aims at."""
    source = load_folder(encoder_folder)
    init = InitConfig(source="teacher", layers="ends", embedding="copy")
    size = StudentConfig(bottleneck=None, layers=2, recurrence=1)
    student = build_student(
        source, size, init, torch.ones(backbone_of(source).config.vocab_size), 16
    )
    encoder = FrozenEncoder.open(encoder_folder, max_tokens=16)
    return student, LiveEncoder.of(encoder, student.tokenizer)


def stage_for(
    parts: tuple[SentenceTransformer, LiveEncoder],
    stage: str = "domains",
    domains: int = 3,
    seed: int = 3,
    **more: Any,
) -> Any:
    given = {"start": "student", "target": "assistant"}
    link = {"stage": stage, "inputs": given, "epochs": 1, "batch_size": 6, "lr": 0.01}
    settings = known_stages()[stage].model_validate(link | {"map": "ends", "loss": LOSS} | more)
    model, live = parts
    torch.manual_seed(seed)
    names = [f"d{number}" for number in range(domains)]
    made = stage_of(settings)(model, settings, 10, {"target": live}, domains=names)
    made.zero_grad(set_to_none=True)
    return made


def batch_for(model: SentenceTransformer, domain: list[int], padding: int = 0) -> PairBatch:
    """Pairs; of six the second and the last have the same source."""
    count = len(domain)
    english = [f"{ENGLISH[i % 6]} {i // 6}" for i in range(count)]
    german = [f"{GERMAN[i % 6]} {i // 6}" for i in range(count)]
    texts = [*english[:5], *english[6:], *german]
    rows = np.arange(len(texts))
    ids, mask = map(torch.from_numpy, stored_tokens(model, texts).padded(rows))
    width = backbone_of(model).config.hidden_size
    targets = torch.randn(2, count, width, generator=torch.Generator().manual_seed(5))
    return PairBatch(
        torch.nn.functional.pad(ids, (0, padding), value=model.tokenizer.pad_token_id),
        torch.nn.functional.pad(mask, (0, padding)),
        torch.from_numpy(rows),
        torch.tensor([0, 1, 2, 3, 4, 1, *range(5, count - 1)]),
        torch.arange(count - 1, 2 * count - 1),
        *targets,
        torch.arange(count),
        torch.tensor(domain),
    )


def part_of(batch: PairBatch, chosen: list[int]) -> PairBatch:
    """Some pairs, with their sentences alone."""
    rows = sorted({*batch.source[chosen].tolist(), *batch.translation[chosen].tolist()})
    place = {row: number for number, row in enumerate(rows)}
    sides = ([place[row] for row in side[chosen].tolist()] for side in
             (batch.source, batch.translation))  # fmt: skip
    source, translation = map(torch.tensor, sides)
    assert batch.source_target is not None and batch.translation_target is not None
    return replace(
        batch, ids=batch.ids[rows], mask=batch.mask[rows], sentences=batch.sentences[rows],
        source=source, translation=translation, source_target=batch.source_target[chosen],
        translation_target=batch.translation_target[chosen], pairs=batch.pairs[chosen],
        domain=batch.domain[chosen],
    )  # fmt: skip


def gradients(stage: Any, loss: Tensor) -> dict[str, Tensor]:
    stage.zero_grad(set_to_none=True)
    loss.backward()
    return {n: p.grad.clone() for n, p in stage.named_parameters() if p.grad is not None}


def flat(model: torch.nn.Module, value: Tensor) -> Tensor:
    """The gradient by all parameters, one after the other."""
    parameters = list(model.parameters())
    found = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def same_as_layers(stage: DomainsStage, loss: Tensor, expected: Tensor, model: Any) -> None:
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    ours = {n: g for n, g in gradients(stage, loss).items() if n.startswith("model.")}
    theirs = {f"model.{n}": g for n, g in gradients(model, expected).items()}
    assert ours.keys() == theirs.keys() and len(ours) > 20
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("update", ["frozen", "joint", "alternate"])
def test_one_domain_is_layerwise_distillation(parts: Any, update: str) -> None:
    batch = batch_for(parts[0], [0] * 6)
    stage = stage_for(parts, domains=1, graph={"update": update})
    expected = stage_for(parts, "layers").objective(batch)
    output = stage.objective(batch)
    assert output.logs["unevenness"] == 0.0
    for name, value in expected.logs.items():
        torch.testing.assert_close(output.logs[name], value, rtol=1e-5, atol=0)
    same_as_layers(stage, output.loss, expected.loss, parts[0])


@pytest.mark.parametrize("graph", [None, {"mix": 0.9999999}])
def test_even_ratios_give_the_mean_over_domains_of_the_layerwise_loss(
    parts: Any, graph: dict[str, Any] | None
) -> None:
    batch, stage = batch_for(parts[0], DOMAIN), stage_for(parts, graph=graph)
    plain = stage_for(parts, "layers")
    own = [part_of(batch, [n for n in range(6) if DOMAIN[n] == j]) for j in range(3)]
    expected = torch.stack([plain.objective(part).loss for part in own]).mean()
    same_as_layers(stage, stage.objective(batch).loss, expected, parts[0])


@pytest.mark.parametrize("by", ["domain", "language"])
def test_the_loss_is_the_sum_of_weighted_errors(parts: Any, by: str) -> None:
    batch = batch_for(parts[0], DOMAIN)
    stage = stage_for(parts, grouping={"by": by, "mode": "all"}, graph={"mix": 0.1, "entropy": 0.3})
    assert stage.graph is not None
    states = frozenset(range(3))
    prototypes, errors, vectors = torch.zeros(3, 3, 16), torch.zeros(3, 3), torch.zeros(3)
    for j in range(3):
        chosen = [n for n in range(6) if DOMAIN[n] == j]
        part = part_of(batch, chosen)
        found = encode(parts[0], part.ids, part.mask, Taps(True, states, frozenset({1, 2})))
        wanted = parts[1].encode(
            part.ids, part.mask, Taps(False, frozenset({0, 1, 4}), frozenset({1, 4}))
        )
        german = set(part.translation.tolist())
        own = [n for n, row in enumerate(part.mask.nonzero()[:, 0].tolist())
               if by == "domain" or row in german]  # fmt: skip
        for n, m in enumerate([0, 1, 4]):
            prototypes[n, j] = found.hidden[n][own].mean(0)
            errors[n, j] = 0.5 * HiddenMSE()([found.hidden[n]], [wanted.hidden[m]]) / 3
            if n:
                shares = [found.attention[n]], [wanted.attention[m]]
                errors[n, j] += 20.0 * AttentionMSE()(*shares, part.mask) / 2
        for side, target in (
            (part.source, part.source_target),
            (part.translation, part.translation_target),
        ):
            vectors[j] += 2.0 * (found.sentence[side] - target).square().mean()
    ratios = 0.9 * stage.graph(prototypes) + 0.1 / 3
    assert (ratios - 1 / 3).abs().max() > 0.02
    uneven = (ratios * (ratios * 3).log()).sum(1).mean()
    expected = (ratios * errors).sum() + vectors.mean() + 0.3 * uneven
    output = stage.objective(batch)
    torch.testing.assert_close(output.loss, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(output.logs["unevenness"], uneven.detach(), rtol=1e-3, atol=1e-6)


def test_padding_changes_nothing(parts: Any) -> None:
    stage = stage_for(parts, graph={"mix": 0.0})
    plain, padded = (stage.objective(batch_for(parts[0], DOMAIN, padding)) for padding in (0, 5))
    torch.testing.assert_close(padded.loss, plain.loss, rtol=1e-5, atol=0)
    for name, value in plain.logs.items():
        torch.testing.assert_close(padded.logs[name], value, rtol=1e-4, atol=1e-8)


def test_a_student_steers_the_ratios_only_where_it_may(parts: Any) -> None:
    """Its gradient is that of constant ratios, unless prototypes are not detached."""
    batch, found = batch_for(parts[0], DOMAIN), {}
    for given in ({}, {"detach_prototypes": False}, {"update": "alternate"}, {"update": "frozen"}):
        stage = stage_for(parts, graph=given)
        found[str(given)] = gradients(stage, stage.objective(batch).loss)
    constant = found.pop("{'update': 'alternate'}")  # in steps of the student they are
    assert not any(name.startswith("graph") for name in constant)
    for given, mine in found.items():
        differs = any(
            not torch.allclose(mine[n], g, rtol=1e-4, atol=1e-7) for n, g in constant.items()
        )
        assert differs == ("False" in given), given
        assert any(n.startswith("graph") for n in mine) == ("frozen" not in given)


def test_the_derivative_through_a_step_is_exact() -> None:
    """Against differences in float64, on a small network with two losses of its outputs."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    weight = list(net.double().parameters())
    ends = torch.randn(3, dtype=torch.float64).unbind()  # read by no loss, one and the other
    unread, first, second = map(torch.nn.Parameter, ends)
    parameters = [*weight, unread, first, second]
    x, y, other = (torch.randn(6, n, dtype=torch.float64) for n in (4, 3, 4))
    before = [p.detach().clone() for p in parameters]

    def step(ratios: Tensor) -> Tensor:
        return (ratios * (net(x) * first - y).square().mean(0)).sum()

    def judge() -> Tensor:
        return (net(other) * second).square().mean() + net(x).sin().mean()

    def after(ratios: Tensor) -> float:
        moved = torch.autograd.grad(step(ratios), [*weight, first])
        with torch.no_grad():
            for p, g in zip([*weight, first], moved, strict=True):
                p -= 0.1 * g
            loss = judge().item()
            for p, value in zip(parameters, before, strict=True):
                p.copy_(value)
        return loss

    ratios = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    loss, slope = response(parameters, step, judge, ratios, 0.1)
    assert loss.item() == pytest.approx(after(ratios), abs=1e-12)
    assert all(torch.equal(p, value) for p, value in zip(parameters, before, strict=True))
    assert all(p.grad is None for p in parameters)
    for place in range(3):
        change = torch.zeros(3, dtype=torch.float64)
        change[place] = 1e-5
        difference = (after(ratios + change) - after(ratios - change)) / 2e-5
        assert abs(difference) > 1e-4
        assert 0.1 * slope[place].item() == pytest.approx(difference, rel=1e-6)


def test_mixed_precision_sees_where_the_weights_are() -> None:
    """Autocast keeps casts of them; the ones before the step are not those after it."""
    torch.manual_seed(0)
    net, x, y = torch.nn.Linear(4, 3), torch.randn(6, 4), torch.randn(6, 3)
    parameters, ratios = list(net.parameters()), torch.tensor([0.2, 0.5, 0.3])

    def step(ratios: Tensor) -> Tensor:
        return (ratios * (net(x).float() - y).square().mean(0)).sum()

    moved = copy.deepcopy(net)
    with torch.autocast("cpu", torch.bfloat16):
        for p, g in zip(
            moved.parameters(), torch.autograd.grad(step(ratios), parameters), strict=True
        ):
            p.data -= g
        expected, before = moved(x).float().square().mean(), net(x)
        loss, _ = response(
            parameters, step, lambda: net(x).float().square().mean(), ratios, rate=1.0
        )
        assert torch.equal(net(x), before)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-3, atol=0)
    assert abs(loss.item() - before.float().square().mean().item()) > 0.01


def test_a_frozen_graph_stays_and_a_joint_one_learns(parts: Any) -> None:
    batch = batch_for(parts[0], DOMAIN)
    for update in ("frozen", "joint"):
        given = {"update": update} | ({} if update == "frozen" else {"rate": 0.5})
        stage = stage_for(parts, graph=given)
        before = {n: v.clone() for n, v in stage.state_dict().items()}
        optimizer: Any = stage.configure_optimizers()["optimizer"]
        stage.objective(batch).loss.backward()
        optimizer.step()
        same = {n for n, v in stage.state_dict().items() if torch.equal(v, before[n])}
        graph = {n for n in before if n.startswith("graph.")}
        assert len(graph) == 8
        assert same & graph == (graph if update == "frozen" else set())
        assert not {n for n in same - graph if n.endswith("query.weight")}
        rates = {group["lr"] for group in optimizer.param_groups}
        assert len(rates) == (1 if update == "frozen" else 2)
        stage.load_state_dict(before)  # the student is that of other tests as well


def test_halves_have_half_of_each_domain(parts: Any) -> None:
    batch = batch_for(parts[0], [0, 0, 0, 1, 1, 0])
    seen, held = halves(batch)
    assert (seen.pairs.tolist(), held.pairs.tolist()) == ([0, 2, 3], [1, 4, 5])
    for half in (seen, held):
        for name in ("source_target", "translation_target", "domain"):
            assert torch.equal(getattr(half, name), getattr(batch, name)[half.pairs])
        for side in ("source", "translation"):
            mine, whole = getattr(half, side), getattr(batch, side)[half.pairs]
            for name in ("ids", "mask", "sentences"):
                assert torch.equal(getattr(half, name)[mine], getattr(batch, name)[whole])
    assert (len(seen.ids), len(held.ids)) == (6, 5)  # pairs 1 and 5 have the same source


@pytest.mark.parametrize("loss", [LOSS, {"hidden": {}, "attention": None}])
def test_the_graph_learns_from_the_other_half(parts: Any, loss: dict[str, Any]) -> None:
    """The value is the even loss of the other half after the step; the student stays.

    The derivative of that loss by a ratio is, in parts of the rate, the product of its gradient
    with that of the error that counts by the ratio.
    """
    batch = batch_for(parts[0], [0, 1] * 3)
    stage = stage_for(parts, domains=2, graph={"update": "alternate", "mix": 0.0}, loss=loss)
    before = {n: p.detach().clone() for n, p in stage.model.named_parameters()}
    seen, held = halves(batch)
    output = stage.graph_objective(batch, 0.1)
    moved = gradients(stage, output.loss)
    assert moved and all(name.startswith("graph") for name in moved)
    assert max(g.abs().max() for g in moved.values()) > 1e-7
    assert all(torch.equal(p, before[n]) for n, p in stage.model.named_parameters())
    step = gradients(stage, stage.objective(seen).loss)
    even = stage_for(parts, domains=2, graph=None, loss=loss)
    ratios, (errors, _) = stage._ratios(stage.sums(seen)), even._weighted(means(even.sums(seen)))
    own = torch.stack([flat(stage.model, error) for error in errors.flatten()])
    with torch.no_grad():
        for name, p in stage.model.named_parameters():
            p -= 0.1 * step.get(f"model.{name}", torch.tensor(0.0))
    after = even.objective(held).loss
    slope = -(own @ flat(stage.model, after)).view_as(ratios)
    with torch.no_grad():
        for name, p in stage.model.named_parameters():
            p.copy_(before[name])
    torch.testing.assert_close(output.loss, after, rtol=1e-4, atol=0)
    for name, gradient in gradients(stage, (slope * ratios).sum()).items():
        torch.testing.assert_close(moved[name], gradient, rtol=1e-3, atol=1e-7)


def test_dev_has_the_ratios_of_all_its_pairs_and_the_even_loss(parts: Any) -> None:
    """Of a hundred domains four are on dev; two have a single pair, one is in both batches."""
    domain = [0, 7, 7, 0, 42, 99]
    batch = batch_for(parts[0], domain)
    stage, logged = stage_for(parts, domains=100, graph={"entropy": 0.5}), {}
    stage.log_dict = logged.update
    stage.log = lambda name, value: logged.update({name: value})
    stage.eval()
    for chosen in ([0, 1, 5], [2, 3, 4]):
        stage.validation_step(part_of(batch, chosen), 0)
    stage.on_validation_epoch_end()
    plain, there = stage_for(parts, "layers"), [0, 7, 42, 99]
    own = [part_of(batch, [n for n in range(6) if domain[n] == j]) for j in there]
    found = [plain.objective(part) for part in own]
    expected = torch.stack([output.loss for output in found]).mean()
    torch.testing.assert_close(logged["dev/loss"], expected, rtol=1e-5, atol=0)
    for name in LOSS:
        mean = torch.stack([output.logs[name] for output in found]).mean()
        torch.testing.assert_close(logged[f"dev/{name}"], mean, rtol=1e-5, atol=0)
    errors = {
        f"dev/pair_mse/d{j}": x.logs["pair_mse"].item() for j, x in zip(there, found, strict=True)
    }
    assert {n: v for n, v in logged.items() if n.startswith("dev/pair_mse/")} == pytest.approx(
        errors
    )
    ratios = torch.tensor([[logged[f"ratio/{n}/d{j}"] for j in range(100)] for n in range(3)])
    torch.testing.assert_close(ratios.sum(1), torch.ones(3))
    assert (ratios > 0).nonzero()[:, 1].tolist() == there * 3
    whole = stage._ratios(stage.sums(batch))
    torch.testing.assert_close(whole[:, there], ratios[:, there])
    uneven = (ratios[:, there] * (4 * ratios[:, there]).log()).sum(1).mean()
    torch.testing.assert_close(logged["dev/unevenness"], uneven, rtol=1e-3, atol=1e-7)


def test_what_nothing_reads_is_refused(parts: Any) -> None:
    for given, message in (
        ({"graph": {"mix": 1.0}}, "all ratios would be 1/D; allowed: below 1, or graph: null"),
        ({"graph": {"update": "frozen", "rate": 2.0}}, "rate is not read with update=frozen"),
        ({"graph": {"update": "frozen", "entropy": 1.0}}, "entropy is not read with update=frozen"),
        ({"graph": {"aggregate": "mean", "rank": 4}}, "rank is not read with aggregate=mean"),
        ({"graph": {"update": "alternate", "detach_prototypes": False}}, "detach_prototypes is"),
        ({"grouping": {"by": "domain", "mode": "one"}}, "grouping.mode must be all"),
    ):
        with pytest.raises(ValueError, match=message):
            stage_for(parts, **given)


SONGS = "+data.corpora.songs={format:tsv,path:songs.tsv,targets:[de],domain:songs}"


@pytest.fixture
def settings(
    encoder_folder: Path, finished_assistant: Path, tmp_path: Path
) -> Callable[..., TrainConfig]:
    """Chains of ``recipe=hrkd`` with two domains."""
    corpus = write_corpus(tmp_path / "corpus")
    rows = [f"they sing {i}\tsie singen {i}\n" for i in range(120)]
    (corpus / "songs.tsv").write_text("".join(rows), encoding="utf-8")

    def build(name: str, *overrides: str) -> TrainConfig:
        given = tiny_settings(encoder_folder, corpus, tmp_path / name)
        known = [x for x in given if not x.startswith("stages.") or x.startswith("stages.assist")]
        sizes = ["max_steps=6", "epochs=9999", "batch_size=16"]
        links = [f"stages.{link}.{size}" for link in ("domains", "mse") for size in sizes]
        return configure("recipe=hrkd", "stage=domains", SONGS, *known, *links, *overrides)

    return build


def test_a_share_of_the_pairs_is_a_share_of_each_domain(
    settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    counts = []
    for share in ("1.0", "0.25"):
        config = settings("any", f"data.fraction={share}")
        store = prepare_pairs(config.data, (), tmp_path / "cache")
        counts.append(np.bincount(store.domain[store.train_pairs()]))
    assert min(counts[1]) > 10
    assert np.all(np.abs(counts[1] / counts[0] - 0.25) < 0.12)


def finished(output: Path) -> tuple[dict[str, Any], dict[str, Tensor], list[list[str]]]:
    """Record of the run, and what it hands over: tensors and ratios."""
    (folder,) = (output / "runs").glob("domains-*")
    tensors = weights(output, "domains") | load_file(folder / "domain_weights/graph.safetensors")
    with (folder / "domain_weights/ratios.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return json.loads((folder / "run.json").read_text()), tensors, rows


@pytest.mark.slow
def test_by_turns_killed_and_resumed(
    settings: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain
    from mlkd.stages.base import Stage
    from mlkd.training.best import KeepBest

    states: dict[int, dict[str, Tensor]] = {}
    best: dict[int, dict[str, Tensor]] = {}
    original, kept = Stage.training_step, KeepBest.on_validation_end
    logged = DomainsStage.log

    def watched(self: Stage, batch: PairBatch, batch_idx: int) -> Tensor:
        if isinstance(self, DomainsStage):
            live = self.live["target"].encoder.model
            tensors = {**self.state_dict(), **{f"live.{n}": p for n, p in live.named_parameters()}}
            states[self.global_step] = {n: v.detach().clone() for n, v in tensors.items()}
        return original(self, batch, batch_idx)

    def validated(self: KeepBest, trainer: Any, module: Any) -> None:
        if isinstance(module, DomainsStage):
            state = module.state_dict().items()
            best[trainer.global_step] = {n: v.detach().clone() for n, v in state}
        kept(self, trainer, module)

    def worse_at_the_end(self: DomainsStage, name: str, value: Any, **more: Any) -> None:
        at_end = name == "dev/loss" and self.global_step == 6
        logged(self, name, value + 9 * at_end, **more)

    monkeypatch.setattr(DomainsStage, "log", worse_at_the_end)
    monkeypatch.setattr(Stage, "training_step", watched)
    monkeypatch.setattr(KeepBest, "on_validation_end", validated)
    more = ["stages.domains.graph.update=alternate", "stages.domains.graph.dropout=0.3",
            "stages.domains.dropout=0.1"]  # fmt: skip
    run_chain(settings("whole", *more))
    record, tensors, ratios = finished(tmp_path / "whole")
    whole = dict(states)
    assert [*whole] == [*range(6)]
    for step in range(5):
        changed = {
            name.split(".")[0]
            for name, value in whole[step].items()
            if not torch.equal(whole[step + 1][name], value)
        }
        assert changed == {"graph" if step % 2 else "model"}, step

    assert sorted(record["outputs"]) == ["domain_weights", "student"]
    assert not any("graph" in name for name in weights(tmp_path / "whole", "domains"))
    step = int(record["training"]["best"]["step"])
    assert step < max(best)  # so that what is restored is not what is there at the end
    restored = {n: v for n, v in best[step].items() if n.startswith("graph.")}
    assert len(restored) > 4
    assert all(torch.equal(tensors[n.removeprefix("graph.")], v) for n, v in restored.items())
    curve = record["training"]["curve"]
    assert ratios[0] == ["step", "layer", "domain", "ratio"]
    steps = [str(int(point["step"])) for point in curve]
    assert [row[:3] for row in ratios[1:]] == [
        [step, str(n), d] for step in steps for n in range(3) for d in ("general", "songs")
    ]
    for first, second in zip(ratios[1::2], ratios[2::2], strict=True):
        assert float(first[3]) + float(second[3]) == pytest.approx(1, abs=1e-5)
    assert {"dev/hidden", "dev/attention", "dev/pair_mse", "dev/unevenness"} < curve[0].keys()

    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    (folder,) = (tmp_path / "parts/runs").glob("domains-*")
    shutil.rmtree(folder)
    run_until(settings("parts", *more), 3)
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    assert not any("live" in name for name in state)
    run_chain(settings("parts", *more))
    again, resumed, same = finished(tmp_path / "parts")
    assert (again["training"]["curve"], same) == (curve, ratios)
    assert resumed.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(resumed[name], value), name


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(900)
def test_the_recipe_runs_on_the_topics_of_the_embedded_corpus(
    command: Command, tmp_path: Path
) -> None:
    done = command(
        "mlkd.train", "recipe=hrkd", "debug=tiny", "trainer.threads=1", f"output_dir={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    names = [path.name.split("-")[0] for path in sorted(tmp_path.glob("runs/*-*"))]
    assert names == ["assistant", "domains", "mse"]
    (path,) = tmp_path.glob("runs/domains-*/domain_weights/ratios.csv")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["domain"] for row in rows}) == 8
    assert len(rows) == 8 * 5 * len({row["step"] for row in rows})


def test_domains_of_pairs_decide_the_link_that_reads_them(
    settings: Callable[..., TrainConfig],
) -> None:
    from mlkd.recipes.identity import BySettings, identity
    from mlkd.recipes.recipe import links

    def names(*overrides: str) -> dict[str, Any]:
        config = settings("out", *overrides)
        by = BySettings(config)
        return {link.name: identity(config, link, by) for link in links(config)}

    usual, other = names(), names("data.corpora.songs.domain=films")
    assert {name for name in usual if usual[name] != other[name]} == {"domains"}
    by = "stages.domains.grouping.by=language"
    usual, other = names(by), names(by, "data.corpora.songs.domain=films")
    assert usual == other and "assistant" in usual


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["batch_size=1"], "a batch of 1 pairs has no place for each of 2 groups"),
        (
            ["batch_size=3", "graph.update=alternate"],
            "the pairs of each domain in a batch, 1, are too few: 2 are needed$",
        ),
        (["fraction=0.01"], "stages.domains: batches by group: no training pair is songs"),
    ],
)
def test_domains_without_pairs_or_place_are_one_line_before_any_link(
    settings: Callable[..., TrainConfig], tmp_path: Path, given: list[str], message: str
) -> None:
    from mlkd.recipes.run import run_chain

    with pytest.raises(UserError, match=message):
        run_chain(settings("out", *(f"stages.domains.{setting}" for setting in given)))
    assert not [*tmp_path.glob("out/runs/*")]


def test_a_search_for_a_size_trains_nothing_for_groups_that_cannot_be(
    settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    from mlkd.recipes.budget import within_budget

    with pytest.raises(UserError, match="has no place for each of 2 groups"):
        within_budget(settings("out", "stages.domains.batch_size=1"), 0.5)
    assert not [*tmp_path.glob("out/runs/*")]


def test_what_the_link_cannot_do_does_not_stop_what_others_share(
    settings: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """A cell that cannot be leaves the others of its sweep theirs."""
    from mlkd.recipes.ahead import run_shared

    run_shared(settings("out", "stages.domains.batch_size=1"), "assistant")
    assert [path.name.split("-")[0] for path in tmp_path.glob("out/runs/*-*")] == ["assistant"]


def test_a_finished_link_is_not_checked_again(
    settings: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlkd.recipes.run import run_chain

    asked = []
    monkeypatch.setattr(Reads, "check_groups", lambda reads: asked.append(reads.name))
    run_chain(settings("out"))
    run_chain(settings("out", "stage=mse"))
    assert asked == ["domains"]


def test_groups_are_shared_evenly_by_processes_or_refused(
    settings: Callable[..., TrainConfig],
) -> None:
    from mlkd.recipes.chain import open_chain
    from mlkd.recipes.recipe import links

    def check(processes: int, *given: str) -> None:
        config = settings("out", *(f"stages.domains.{setting}" for setting in given))
        (link,) = (link for link in links(config) if link.name == "domains")
        trainer = config.trainer.model_copy(update={"devices": processes})
        replace(open_chain(config).reads(link), trainer=trainer).check_groups()

    check(2, "batch_size=8", "graph.update=alternate")
    for processes, given, message in (
        (2, ["batch_size=6"], "domain in a batch, 3, cannot be shared evenly by 2 processes"),
        (
            2,
            ["batch_size=4", "graph.update=alternate"],
            "in a batch, 2, are too few: 2 are needed on each process",
        ),
        (7, ["batch_size=9999"], "all that the largest domain has in a batch, [0-9]+, cannot be"),
    ):
        with pytest.raises(UserError, match=message):
            check(processes, *given)


def test_a_hundred_domains_train(settings: Callable[..., TrainConfig], tmp_path: Path) -> None:
    from mlkd.recipes.run import run_chain

    rows = [f"they sing {i}\tsie singen {i}\tsong {i % 99}\n" for i in range(1188)]
    (tmp_path / "corpus/hundred.tsv").write_text("".join(rows), encoding="utf-8")
    songs = ["data.corpora.songs.path=hundred.tsv", "+data.corpora.songs.domain_column=2"]
    size = "stages.domains.batch_size=200"  # two of each song, and of the other corpus
    for update in ("joint", "alternate"):
        run_chain(settings(update, *songs, size, f"stages.domains.graph.update={update}"))
        _, tensors, ratios = finished(tmp_path / update)
        assert all(torch.isfinite(value).all() for value in tensors.values())
        table = np.array([float(row[3]) for row in ratios[1:]]).reshape(-1, 3, 100)
        np.testing.assert_allclose(table.sum(2), 1, atol=1e-4)
        assert (table[table > 0] >= 0.2 / 100 - 1e-9).all()  # graph.mix; no dev pair, no ratio


EIGHT = [0, 0, 0, 0, 1, 1, 1, 1]
GRAPHS: list[dict[str, Any]] = [
    {"dropout": 0.3, "entropy": 0.1},
    {"detach_prototypes": False},
    {"update": "alternate", "mix": 0.0},
]


def outcome(folder: Path, rank: int, world: int) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Ratios, and loss and gradients as data-parallel training averages them, of each graph."""
    model = load_folder(folder)
    encoder = FrozenEncoder.open(folder, max_tokens=16)
    torch.manual_seed(0)
    torch.nn.init.normal_(layers(backbone_of(encoder.model))[1].attention.self.query.weight)
    parts, found = (model, LiveEncoder.of(encoder, model.tokenizer)), []
    whole = batch_for(model, EIGHT)  # of the pairs with the same source each domain has one
    for given in GRAPHS:
        stage = stage_for(parts, domains=2, graph=given)
        # One process halves what it has as two do that have every second pair each.
        order = [0, 2, 1, 3, 4, 6, 5, 7] if given.get("update") == "alternate" else list(range(8))
        batch = part_of(whole, list(range(8))[rank::world] if world > 1 else order)
        stage.train()
        model.eval()  # without dropout; that of the graph is the same on all ranks
        output = stage_output(stage, batch)
        output.loss.backward()
        values = {n: p.grad for n, p in stage.named_parameters() if p.grad is not None}
        values["loss"] = output.loss.detach()
        if world > 1:
            for value in values.values():
                dist.all_reduce(value)
                value /= world
        found.append((stage._ratios(stage.sums(batch)).detach(), values))
    return found


def test_student_and_graph_take_turns(parts: tuple[SentenceTransformer, LiveEncoder]) -> None:
    student, graph = stage_for(parts, graph={"update": "alternate"}).parameter_groups()
    assert [student.turn(step) for step in range(4)] == [True, False, True, False]
    assert [graph.turn(step) for step in range(4)] == [False, True, False, True]
    for update in ("joint", "frozen"):
        groups = stage_for(parts, graph={"update": update}).parameter_groups()
        assert [group.turn for group in groups] == [None] * (1 + (update == "joint"))


def test_in_odd_steps_the_graph_learns_and_in_even_ones_the_student(parts: Any) -> None:
    batch = batch_for(parts[0], DOMAIN)
    stage = stage_for(parts, graph={"update": "alternate"})
    before = {n: v.clone() for n, v in stage.state_dict().items()}
    seen = [before]

    class Watch(Callback):
        def on_train_batch_end(self, *rest: Any) -> None:
            seen.append({n: v.clone() for n, v in stage.state_dict().items()})

    take_steps(stage, [batch] * 4, [batch], Watch())
    changed = [
        {name.split(".")[0] for name, value in new.items() if not torch.equal(value, old[name])}
        for old, new in itertools.pairwise(seen)
    ]
    assert changed == [{"model"}, {"graph"}] * 2
    stage.load_state_dict(before)  # the student is that of other tests as well


def test_the_dropout_of_the_graph_hangs_on_seed_and_step_alone(parts: Any) -> None:
    batch = batch_for(parts[0], DOMAIN)
    stage = stage_for(parts, graph={"dropout": 0.5})
    before, found = {n: v.clone() for n, v in stage.state_dict().items()}, []

    def ratios() -> Tensor:
        stage.eval()
        stage.graph.train()
        return stage._ratios(stage.sums(batch)).detach()

    class Watch(Callback):
        def on_train_batch_start(self, *rest: Any) -> None:
            stage.load_state_dict(before)
            found.append(ratios())

    take_steps(stage, [batch] * 3, [batch], Watch())
    stage.load_state_dict(before)  # the student is that of other tests as well
    assert not any(torch.equal(*two) for two in itertools.combinations(found, 2))
    state, first = torch.get_rng_state(), ratios()
    assert torch.equal(torch.get_rng_state(), state)  # that of the student is its own
    torch.manual_seed(4)
    assert torch.equal(ratios(), first)
    stage._dropout_seed += 1
    assert not torch.equal(ratios(), first)


def test_each_run_has_a_dropout_of_its_own(parts: Any) -> None:
    assert len({stage_for(parts, seed=seed)._dropout_seed for seed in range(20)}) == 20


def test_ratios_are_saved_and_handed_over(parts: Any, tmp_path: Path) -> None:
    """Those of each validation; with a graph that as well."""
    batch = batch_for(parts[0], DOMAIN)
    for given in ({}, None):
        stage, folder, saved = stage_for(parts, graph=given), tmp_path / str(given), {}
        before = {n: v.clone() for n, v in stage.state_dict().items()}
        take_steps(stage, [batch] * 2, [batch])
        stage.on_save_checkpoint(saved)
        again = stage_for(parts, graph=given)
        again.load_state_dict(stage.state_dict())
        again.on_load_checkpoint(saved)
        assert torch.equal(again._rng, saved["rng"][0])
        folder.mkdir()
        again.outputs()["domain_weights"](folder)
        with (folder / "ratios.csv").open(encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["step", "layer", "domain", "ratio"]
        assert [row[:3] for row in rows[1:]] == [
            [step, layer, f"d{j}"] for step in "12" for layer in "012" for j in range(3)
        ]
        found = torch.tensor([float(row[3]) for row in rows[1:]]).view(2, 3, 3)
        last = stage.eval()._ratios(stage.sums(batch)).detach()
        torch.testing.assert_close(found[1], last, rtol=1e-4, atol=0)
        if given is None:
            assert [path.name for path in folder.iterdir()] == ["ratios.csv"]
        else:
            state = load_file(folder / "graph.safetensors")
            assert state.keys() == stage.graph.state_dict().keys()
            for name, value in stage.graph.state_dict().items():
                assert torch.equal(state[name], value)
            assert not torch.equal(found[0], found[1])
        stage.load_state_dict(before)  # the student is that of other tests as well


def test_each_side_aims_at_its_own_vector(parts: tuple[SentenceTransformer, LiveEncoder]) -> None:
    stage = stage_for(parts)
    assert stage.signals(stage.settings) == Signals(Vectors("translation"), live={"target"})


def stage_output(stage: DomainsStage, batch: PairBatch) -> Any:
    if stage.settings.graph is not None and stage.settings.graph.update == "alternate":
        return stage.graph_objective(batch, 0.1)
    return stage.objective(batch)


def work(rank: int, folder: str, store: str, results: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.save(outcome(Path(folder), rank, 2), f"{results}.{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.enable_socket
def test_two_ranks_have_the_ratios_of_one(encoder_folder: Path, tmp_path: Path) -> None:
    given = str(encoder_folder), str(tmp_path / "store"), str(tmp_path / "result")
    mp.start_processes(work, given, nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"result.{rank}") for rank in (0, 1))
    for number, (ratios, values) in enumerate(outcome(encoder_folder, 0, 1)):
        assert torch.equal(first[number][0], second[number][0])
        torch.testing.assert_close(first[number][0], ratios, rtol=1e-5, atol=0)
        assert (ratios - 0.5).abs().max() > 1e-3
        assert first[number][1].keys() == values.keys() and len(values) > 5
        for name, value in values.items():
            torch.testing.assert_close(
                first[number][1][name], value, rtol=1e-3, atol=1e-6, msg=f"{number} {name}"
            )
