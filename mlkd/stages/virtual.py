"""What a step of the student would do to other pairs, and how that hangs on the ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mlkd.data.module import PairBatch
from mlkd.machine import ranks


def halves(batch: PairBatch) -> tuple[PairBatch, PairBatch]:
    """A batch in two, each with half of the pairs of every domain, of which it has two or more."""
    same = batch.domain == batch.domain[:, None]
    before = same.tril(-1).sum(1)  # how many of a pair's domain stand before it
    chosen = before % 2 == 0
    return _part(batch, chosen), _part(batch, ~chosen)


def _part(batch: PairBatch, chosen: Tensor) -> PairBatch:
    """Some pairs of a batch and their distinct sentences."""
    sides = torch.cat([batch.source[chosen], batch.translation[chosen]])
    kept, rows = sides.unique(return_inverse=True)
    source, translation = rows.chunk(2)
    source_target, translation_target, value = (
        None if part is None else part[chosen]
        for part in (batch.source_target, batch.translation_target, batch.value)
    )
    return PairBatch(
        ids=batch.ids[kept],
        mask=batch.mask[kept],
        sentences=batch.sentences[kept],
        source=source,
        translation=translation,
        source_target=source_target,
        translation_target=translation_target,
        pairs=batch.pairs[chosen],
        domain=batch.domain[chosen],
        value=value,
    )


def response(
    parameters: Sequence[nn.Parameter],
    step: Callable[[Tensor], Tensor],
    judge: Callable[[], Tensor],
    ratios: Tensor,
    rate: float,
) -> tuple[Tensor, Tensor]:
    """How a loss after one step hangs on the ratios of the loss that is stepped down.

    The step is a plain one, parameters less ``rate`` times the gradient, and is taken back. Nothing
    is approximated: with g the gradient of the first loss and v that of the second one after the
    step, the derivative by a ratio is ``-rate v · dg/dr``. With several ranks g and v are those of
    the joined batch.

    Args:
        parameters: What a step changes.
        step: The loss ``()`` at some ratios; it can be differentiated twice.
        judge: The loss ``()`` that is looked at after the step.
        ratios: Where ``step`` is taken ``(L, D)``.
        rate: Length of the step.

    Returns:
        The second loss after the step, and its derivative by the ratios ``(L, D)`` in parts of
        ``rate``; both without gradients.
    """
    ratios = ratios.detach().requires_grad_()
    found = torch.autograd.grad(step(ratios), parameters, create_graph=True, allow_unused=True)
    used = [(p, g) for p, g in zip(parameters, found, strict=True) if g is not None]
    parameters, gradients = [p for p, _ in used], [g for _, g in used]
    with _moved(parameters, [-rate * ranks.mean(g.detach()) for g in gradients]):
        loss = judge()
        after = torch.autograd.grad(loss, parameters, allow_unused=True)
    products = [
        (g * ranks.mean(v)).sum() for g, v in zip(gradients, after, strict=True) if v is not None
    ]
    (along,) = torch.autograd.grad(torch.stack(products).sum(), ratios)
    return loss.detach(), -along


@contextmanager
def _moved(parameters: Sequence[nn.Parameter], by: Sequence[Tensor]) -> Iterator[None]:
    """Parameters elsewhere; afterwards they are what they were in every bit.

    Their tensors are exchanged, not written to, so that what autograd has kept stays valid.
    """
    before = [p.data for p in parameters]
    torch.clear_autocast_cache()  # which may hold them in half precision
    try:
        for p, change in zip(parameters, by, strict=True):
            p.data = p.data + change
        yield
    finally:
        for p, data in zip(parameters, before, strict=True):
            p.data = data
        torch.clear_autocast_cache()
