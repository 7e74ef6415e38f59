"""Sums over domains: against loops over sentences, tokens and heads."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from mlkd.losses import domain_sums as over
from mlkd.losses.vectors import PairVectors

LENGTHS, HEADS, WIDTH, LAYERS, DOMAINS = [3, 1, 4, 2], 2, 5, 3, 3
MASK = (torch.arange(4) < torch.tensor(LENGTHS).unsqueeze(1)).long()
SOURCE, TRANSLATION, DOMAIN = torch.tensor([[0, 0, 2], [1, 3, 3], [2, 0, 2]])
"""Sentence 3 is in pairs of domains 0 and 2, and no pair is of domain 1."""
OF = {0: {0, 2}, 1: {2}, 2: {2}, 3: {0, 2}}
SENTENCES = torch.tensor([[float(d in OF[u]) for d in range(DOMAINS)] for u in OF])


def drawn(seed: int, *shape: int) -> list[Tensor]:
    """A tensor a layer; nothing about them is symmetric."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(LAYERS)]


def test_a_sentence_is_of_the_domains_of_its_pairs() -> None:
    found = over.members((SOURCE, TRANSLATION), DOMAIN, len(OF), DOMAINS)
    assert torch.equal(found, SENTENCES)


def test_token_states_are_those_of_a_loop() -> None:
    owner = [u for u, length in enumerate(LENGTHS) for _ in range(length)]
    found, wanted = drawn(0, len(owner), WIDTH), drawn(1, len(owner), WIDTH)
    errors, states = torch.zeros(LAYERS, DOMAINS), torch.zeros(LAYERS, WIDTH, DOMAINS)
    number = torch.zeros(DOMAINS)
    for token, u in enumerate(owner):
        for d in OF[u]:
            number[d] += 1
            for layer, k in product(range(LAYERS), range(WIDTH)):
                state, aim = found[layer][token, k], wanted[layer][token, k]
                errors[layer, d] += (state - aim) ** 2 / WIDTH
                states[layer, k, d] += state
    tokens = SENTENCES[owner]
    for sums, total in (
        (over.hidden_sums(found, wanted, tokens), errors),
        (over.prototype_sums(found, tokens), states),
    ):
        torch.testing.assert_close(sums[0], total, rtol=1e-5, atol=1e-5)
        assert sums[1].tolist() == number.tolist()


def test_attention_is_that_of_a_loop() -> None:
    shape = len(LENGTHS), HEADS, 4, 4
    entry = (MASK[:, None, :, None] * MASK[:, None, None, :]).double()
    found, wanted = ([x * entry for x in drawn(seed, *shape)] for seed in (2, 3))
    errors, number = torch.zeros(LAYERS, DOMAINS), torch.zeros(DOMAINS)
    for u, length in enumerate(LENGTHS):
        for d, query, key in product(OF[u], range(length), range(length)):
            number[d] += 1
            for layer, head in product(range(LAYERS), range(HEADS)):
                place = u, head, query, key
                errors[layer, d] += (found[layer][place] - wanted[layer][place]) ** 2 / HEADS
    sums = over.attention_sums(found, wanted, MASK, SENTENCES)
    torch.testing.assert_close(sums[0], errors, rtol=1e-5, atol=1e-5)
    assert sums[1].tolist() == number.tolist()


def test_each_layer_has_a_target() -> None:
    states, shares = [torch.zeros(1, 1)] * 2, [torch.zeros(1, 1, 1, 1)] * 2
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match="shorter"):
        over.hidden_sums(states, states[:1], one)
    with pytest.raises(ValueError, match="shorter"):
        over.attention_sums(shares, shares[:1], one, one)


def test_both_sides_of_a_pair_count() -> None:
    sides = [x[:3] for seed in (4, 5) for x in drawn(seed, 3, WIDTH)[:2]]
    errors = torch.zeros(3, dtype=torch.float64)
    for b, k in product(range(3), range(WIDTH)):
        errors[b] += (sides[0][b, k] - sides[2][b, k]) ** 2 / WIDTH
        errors[b] += (sides[1][b, k] - sides[3][b, k]) ** 2 / WIDTH
    found = over.pair_errors(PairVectors(*sides, SOURCE, TRANSLATION))
    torch.testing.assert_close(found, errors)


def test_sums_of_batches_are_added_and_divided_by_what_there_was() -> None:
    one = {"hidden": (torch.tensor([[6.0, 0.0, 1.0]]), torch.tensor([2.0, 0.0, 1.0]))}
    other = {"hidden": (torch.tensor([[1.0, 0.0, 4.0]]), torch.tensor([3.0, 0.0, 4.0]))}
    assert over.means(one)["hidden"].tolist() == [[3.0, 0.0, 1.0]]
    both = over.added(over.added({}, one), other)
    torch.testing.assert_close(over.means(both)["hidden"], torch.tensor([[1.4, 0.0, 1.0]]))
    assert over.joined_means(both)["hidden"].tolist() == over.means(both)["hidden"].tolist()
    total, count = over.joined_sums(both["hidden"])
    assert (total.tolist(), count.tolist()) == ([[7.0, 0.0, 5.0]], [5.0, 0.0, 5.0])
