from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from mlkd.losses import build_loss
from mlkd.losses.vectors import PairVectors
from mlkd.schema import LossConfig

LOSSES: list[dict[str, Any]] = [
    {"pair_mse": {}},
    *({"pair_mse": {"weight": 0.3}, "mcl": {"mode": mode}} for mode in ("soft", "bool", "ce")),
]


def joined_batch() -> dict[str, Tensor]:
    """Inputs of an encoder and targets of 8 pairs, two of which have the same source."""
    generator = torch.Generator().manual_seed(0)
    names = ("source", "translation", "source_target", "translation_target")
    rows = {name: torch.randn(8, 5, generator=generator, dtype=torch.float64) for name in names}
    identities = {"source_id": torch.arange(8), "translation_id": torch.arange(8) + 10}
    identities["source_id"][5] = 2
    return rows | identities


def loss_and_gradient(config: dict[str, Any], rank: int, world: int) -> tuple[Tensor, Tensor]:
    """Loss of one rank's part of the batch, and the gradient of the weights as DDP averages it."""
    torch.manual_seed(1)
    encoder: nn.Module = nn.Linear(5, 5).double()
    model = nn.parallel.DistributedDataParallel(encoder) if world > 1 else encoder
    part = {name: rows[rank::world] for name, rows in joined_batch().items()}
    part = {
        name: rows.double() if rows.is_floating_point() else rows for name, rows in part.items()
    }
    vectors = model(torch.cat([part["source"], part["translation"]]))
    source, translation = vectors.chunk(2)
    loss, _ = build_loss(LossConfig.model_validate(config))(
        PairVectors(**part | {"source": source, "translation": translation})
    )
    loss.backward()
    weight = next(encoder.parameters())
    assert weight.grad is not None
    return loss.detach(), weight.grad


def work(rank: int, store: str, results: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    values = [loss_and_gradient(config, rank, 2) for config in LOSSES]
    torch.save(values, f"{results}.{rank}")
    dist.destroy_process_group()


def test_two_ranks_have_the_loss_and_gradients_of_one_with_the_joined_batch(
    tmp_path: Path,
) -> None:
    mp.start_processes(
        work, (str(tmp_path / "store"), str(tmp_path / "result")), nprocs=2, start_method="spawn"
    )
    first, second = (torch.load(tmp_path / f"result.{rank}") for rank in (0, 1))
    for number, config in enumerate(LOSSES):
        loss, gradient = loss_and_gradient(config, 0, 1)
        mean = (first[number][0] + second[number][0]) / 2
        torch.testing.assert_close(mean, loss, msg=str(config))
        torch.testing.assert_close(first[number][1], gradient, msg=str(config))
        torch.testing.assert_close(second[number][1], gradient, msg=str(config))
