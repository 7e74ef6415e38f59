"""Ratios of layers and domains: against a loop in float64, by hand, and what must not matter."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mlkd.config.stages.domains import DomainGraphConfig
from mlkd.losses.domain_graph import DomainGraph

STATES, DOMAINS, WIDTH = 4, 3, 5
ALL = torch.ones(DOMAINS, dtype=torch.bool)


def graph_of(seed: int = 0, domains: int = DOMAINS, **more: Any) -> DomainGraph:
    torch.manual_seed(seed)
    given = {"rank": 2, "heads": 2, "head_width": 3} | more
    return DomainGraph(STATES, domains, WIDTH, **given).double()


def prototypes_of(seed: int = 0, domains: int = DOMAINS) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(STATES, domains, WIDTH, generator=draw, dtype=torch.float64)


def softmax(values: list[Tensor]) -> list[Tensor]:
    whole = sum(value.exp() for value in values)
    return [value.exp() / whole for value in values]


def matrix(bilinear: Any, *place: int) -> Tensor:
    """A or B, written out."""
    left = bilinear.left[place]
    return left if bilinear.right is None else left @ bilinear.right[place]


def aggregated(graph: DomainGraph, p: Tensor) -> list[list[Tensor]]:
    """Compare and aggregate, one domain and state at a time."""
    found = [[p[0, j] for j in range(p.shape[1])]]
    for n in range(1, STATES):
        row = []
        for j in range(p.shape[1]):
            reference = p[n, j]
            if graph.between is not None:
                scores = [p[n, j] @ matrix(graph.between, n - 1, 0) @ x for x in p[n]]
                reference = sum(s * x for s, x in zip(softmax(scores), p[n], strict=True))
            if graph.below is not None:
                b = matrix(graph.below, n - 1, j)
                weights = softmax([p[m, j] @ b @ reference for m in range(n + 1)])
            else:
                weights = [torch.tensor(1 / (n + 1), dtype=torch.float64)] * (n + 1)
            row.append(sum(w * p[m, j] for m, w in enumerate(weights)))
        found.append(row)
    return p if graph.aggregate == "none" else found  # type: ignore[return-value]


def attended(layer: Any, state: int, nodes: list[Tensor]) -> list[Tensor]:
    """One layer of graph attention with the ELU behind it, an edge at a time."""
    found = []
    for x in nodes:
        heads = []
        for head in range(layer.project.shape[1]):
            w, a = layer.project[state, head], layer.edge[state, head, :, 0]
            edges = [torch.cat([x @ w, y @ w]) @ a for y in nodes]
            edges = [torch.where(e > 0, e, 0.2 * e) for e in edges]
            mixed = sum(s * (y @ w) for s, y in zip(softmax(edges), nodes, strict=True))
            mixed = mixed + x @ w if layer.residual else mixed
            heads.append(torch.where(mixed > 0, mixed, mixed.exp() - 1))
        found.append(torch.cat(heads))
    return found


def loop(graph: DomainGraph, p: Tensor) -> Tensor:
    rows = []
    for state, nodes in enumerate(aggregated(graph, p)):
        scores = attended(graph.second, state, attended(graph.first, state, list(nodes)))
        rows.append(torch.stack(softmax([score[0] for score in scores])))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"rank": None},
        {"residual": False},
        {"self_attention": False},
        {"aggregate": "mean"},
        {"aggregate": "none"},
    ],
    ids=str,
)
def test_ratios_and_their_gradients_are_those_of_a_loop(more: dict[str, Any]) -> None:
    for seed in range(3):
        graph, p = graph_of(seed, **more), prototypes_of(seed).requires_grad_()
        ratios, expected = graph(p), loop(graph, p)
        torch.testing.assert_close(ratios, expected, rtol=1e-10, atol=0)
        assert ratios.shape == (STATES, DOMAINS)
        torch.testing.assert_close(ratios.sum(1), torch.ones(STATES, dtype=torch.float64))
        towards = torch.randn(ratios.shape, dtype=torch.float64)
        leaves = [p, *graph.parameters()]
        ours, theirs = (
            torch.autograd.grad((x * towards).sum(), leaves) for x in (ratios, expected)
        )
        for one, other in zip(ours, theirs, strict=True):
            assert not graph.first.residual or other.abs().max() > 1e-6
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


def test_without_a_residual_edges_of_one_sign_make_all_ratios_even() -> None:
    """What a node adds to its edges is the same for all of them, so the softmax forgets it."""
    for residual in (False, True):
        graph, p = graph_of(residual=residual), prototypes_of()
        with torch.no_grad():
            for layer in (graph.first, graph.second):
                layer.project.abs_()
                layer.edge.abs_()
        p = p.abs()
        ratios = graph(p)
        uneven = (ratios - 1 / DOMAINS).abs().max().item()
        (gradient,) = torch.autograd.grad(ratios[1, 0], graph.first.project)
        assert (uneven < 1e-12) == (gradient.abs().max() < 1e-12) == (not residual)
        assert not residual or uneven > 0.01


def test_weights_below_add_up_to_one_and_are_none_above() -> None:
    weights = graph_of().weights(prototypes_of(), ALL)
    assert weights.shape == (STATES, STATES, DOMAINS)
    torch.testing.assert_close(weights.sum(1), torch.ones(STATES, DOMAINS, dtype=torch.float64))
    for n in range(STATES):
        assert (weights[n, : n + 1] > 0).all()
        assert not weights[n, n + 1 :].any()
    assert (weights[3] - 0.25).abs().max() > 0.1


def test_with_zero_matrices_the_weights_are_even_and_the_mean_is_plain() -> None:
    graph, p = graph_of(rank=None), prototypes_of()
    with torch.no_grad():
        for bilinear in (graph.between, graph.below):
            assert bilinear is not None
            bilinear.left.zero_()
    for n in range(STATES):
        torch.testing.assert_close(graph.aggregated(p, ALL)[n], p[: n + 1].mean(0))
    # With A alone at zero the reference is the mean over the domains.
    other = graph_of(rank=None)
    assert other.between is not None and other.below is not None
    with torch.no_grad():
        other.between.left.zero_()
    b = other.below.left[0, 1]
    scores = torch.stack([p[m, 1] @ b @ p[1].mean(0) for m in (0, 1)])
    torch.testing.assert_close(other.weights(p, ALL)[1, :2, 1], scores.softmax(0))


@pytest.mark.parametrize("rank", [2, None])
def test_permuted_domains_have_permuted_ratios(rank: int | None) -> None:
    graph, p, order = graph_of(rank=rank), prototypes_of(), torch.tensor([2, 0, 1])
    before = graph(p)
    with torch.no_grad():
        assert graph.below is not None
        for b in graph.below.parameters():
            b.copy_(b[:, order])
    torch.testing.assert_close(graph(p[:, order]), before[:, order])
    assert not torch.allclose(graph(p), before)  # B is of each domain


def test_one_domain_has_everything() -> None:
    ratios = graph_of(domains=1)(prototypes_of(domains=1))
    assert torch.equal(ratios, torch.ones(STATES, 1).double())


def test_equal_domains_are_weighted_alike() -> None:
    """Of two domains with the same prototypes, whatever the weights, each has half.

    Where states are compared that needs equal matrices B as well.
    """
    p = prototypes_of(domains=1).expand(-1, 2, -1)
    halves = torch.full((STATES, 2), 0.5, dtype=torch.float64)
    for seed in range(3):
        for aggregate in ("none", "mean"):
            graph = graph_of(seed, domains=2, aggregate=aggregate)
            torch.testing.assert_close(graph(p), halves)
        graph = graph_of(seed, domains=2)
        torch.testing.assert_close(graph(p)[0], halves[0])
        assert (graph(p)[1:] - 0.5).abs().max() > 1e-3
        with torch.no_grad():
            assert graph.below is not None
            for b in graph.below.parameters():
                b[:, 1] = b[:, 0]
        torch.testing.assert_close(graph(p), halves)


def test_a_domain_that_is_not_there_changes_nothing() -> None:
    graph, p = graph_of(), prototypes_of()
    present = torch.tensor([True, False, True])
    with torch.no_grad():
        assert graph.below is not None
        smaller = graph_of(domains=2)
        state = graph.state_dict()
        kept = {n: v[:, present] if n.startswith("below") else v for n, v in state.items()}
        smaller.load_state_dict(kept)
    p[:, 1] = 1e3  # whatever stands there
    ratios = graph(p, present)
    assert not ratios[:, 1].any()
    torch.testing.assert_close(ratios[:, present], smaller(p[:, present]))


def test_dropout_is_for_training() -> None:
    graph, p = graph_of(dropout=0.5), prototypes_of()
    assert not torch.equal(graph(p), graph(p))
    graph.eval()
    assert torch.equal(graph(p), graph_of()(p))


def test_what_is_not_given_is_as_in_the_settings() -> None:
    known = inspect.signature(DomainGraph).parameters.values()
    defaults = {p.name: p.default for p in known if p.default is not p.empty}
    assert len(defaults) == 7
    assert defaults == {name: getattr(DomainGraphConfig(), name) for name in defaults}


def test_initial_weights_and_their_number() -> None:
    """The paper's sizes: 41,379,850 parameters for five domains, 4,737,026 in each network."""
    with torch.device("meta"):
        graph = DomainGraph(5, 5, 768, rank=None, heads=8, head_width=768)
    counts = {name: p.numel() for name, p in graph.named_parameters()}
    networks = sum(n for name, n in counts.items() if name.startswith(("first", "second")))
    # The released code has matrices for state 0, too, which nothing reads.
    assert networks == 5 * 4_737_026
    assert networks + 5 * (1 + 5) * 768**2 == 41_379_850
    assert counts["between.left"] + counts["below.left"] == 4 * (1 + 5) * 768**2
    for width, head_width in ((5, 3), (40, 60)):
        bound = 1.414 * math.sqrt(6 / (width + head_width))
        graph = DomainGraph(STATES, DOMAINS, width, head_width=head_width)
        found = graph.first.project.abs().max().item()
        assert 0.9 * bound < found <= bound
