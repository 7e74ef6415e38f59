"""Terms over layers: against a loop over tokens and heads, and against values by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlkd.losses.attention import AttentionMSE
from mlkd.losses.hidden import HiddenMSE

LENGTHS, LONGEST, HEADS, WIDTH, LAYERS = [3, 1, 4], 4, 2, 5, 3
MASK = (torch.arange(LONGEST) < torch.tensor(LENGTHS).unsqueeze(1)).long()


def drawn(seed: int, *shape: int) -> list[Tensor]:
    """A tensor a layer; nothing about them is symmetric."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw).requires_grad_() for _ in range(LAYERS)]


def hidden_loop(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    total = torch.tensor(0.0, dtype=torch.float64)
    for f, w in zip(found, wanted, strict=True):
        for token in range(len(f)):
            for k in range(WIDTH):
                error = f[token, k].double() - w[token, k].double()
                total = total + error**2 / (len(f) * WIDTH * LAYERS)
    return total


def attention_loop(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    entries = HEADS * sum(length**2 for length in LENGTHS)
    total = torch.tensor(0.0, dtype=torch.float64)
    for f, w in zip(found, wanted, strict=True):
        for sentence, length in enumerate(LENGTHS):
            for head in range(HEADS):
                for query in range(length):
                    for key in range(length):
                        place = sentence, head, query, key
                        error = f[place].double() - w[place].double()
                        total = total + error**2 / (entries * LAYERS)
    return total


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["hidden", "attention"])
def test_a_term_and_its_gradients_are_those_of_a_loop(kind: str, seed: int) -> None:
    tokens = sum(LENGTHS)
    shape = (tokens, WIDTH) if kind == "hidden" else (len(LENGTHS), HEADS, LONGEST, LONGEST)
    found, wanted = drawn(seed, *shape), drawn(seed + 10, *shape)
    value = HiddenMSE()(found, wanted) if kind == "hidden" else AttentionMSE()(found, wanted, MASK)
    loop = (hidden_loop if kind == "hidden" else attention_loop)(found, wanted)
    assert value.ndim == 0
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), loop, rtol=1e-5, atol=0)
    ours, theirs = (torch.autograd.grad(x, found) for x in (value, loop))
    assert all(gradient.abs().max() > 1e-3 for gradient in theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_attention_of_padding_counts_for_nothing() -> None:
    shape = (len(LENGTHS), HEADS, LONGEST, LONGEST)
    found, wanted = drawn(0, *shape), drawn(1, *shape)
    value = AttentionMSE()(found, wanted, MASK)
    real = MASK.bool()
    padding = ~(real[:, None, :, None] & real[:, None, None, :]).expand(shape)
    for sides in (found, wanted):
        sides[0] = sides[0].detach().masked_fill(padding, torch.nan).requires_grad_()
    assert torch.equal(AttentionMSE()(found, wanted, MASK), value)
    wider = [[torch.nn.functional.pad(x, (0, 2, 0, 2), value=7.0) for x in s]
             for s in (found, wanted)]  # fmt: skip
    value = AttentionMSE()(*wider, torch.nn.functional.pad(MASK, (0, 2)))
    value.backward()
    torch.testing.assert_close(value, AttentionMSE()(found, wanted, MASK))
    assert found[0].grad is not None
    assert not found[0].grad[padding].any()
    assert found[0].grad.isfinite().all()


def test_by_hand() -> None:
    # Layers of errors 1 and 3 in every number: (1 + 9) / 2.
    zeros, ones = torch.zeros(4, 2), torch.ones(4, 2)
    assert HiddenMSE()([ones, 3 * ones], [zeros, zeros]).item() == 5.0
    # A sentence of one token beside one of two: 1 + 4 entries, of which one differs by 2.
    found = torch.zeros(2, 1, 2, 2)
    found[1, 0, 1, 0] = 2.0
    mask = torch.tensor([[1, 0], [1, 1]])
    assert AttentionMSE()([found], [torch.zeros_like(found)], mask).item() == pytest.approx(4 / 5)


def test_each_layer_has_a_target() -> None:
    shares, mask = [torch.zeros(1, 1, 1, 1)] * 2, torch.ones(1, 1)
    with pytest.raises(ValueError, match="shorter"):
        AttentionMSE()(shares, shares[:1], mask)
    with pytest.raises(ValueError, match="shorter"):
        HiddenMSE()(shares, shares[:1])


def test_half_precision_is_compared_in_single() -> None:
    found, wanted = torch.full((2, 3), 300.0).half(), torch.zeros(2, 3).half()
    assert HiddenMSE()([found], [wanted]).item() == 90000.0  # above what a half can hold
    shares = [x[None, None, :, :2] for x in (found, wanted)]
    assert AttentionMSE()(shares[:1], shares[1:], torch.ones(1, 2)).item() == 90000.0
