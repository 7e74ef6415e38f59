"""The student before its first stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mlkd.config.schema import TrainConfig
from mlkd.recipes.chain import open_chain
from mlkd.student.start import new_student


def test_what_is_random_hangs_on_the_seed_alone(
    tiny: Callable[..., TrainConfig], assistant: Path, tmp_path: Path
) -> None:
    config = tiny("init=scratch")
    source, pairs = assistant / "student", open_chain(config).pairs
    students = [
        new_student(source, config.student, config.init, seed, 16, pairs, tmp_path / "tokens")
        for seed in (1, 1, 2)
    ]
    first, again, other = (
        torch.cat([p.detach().flatten() for p in student.parameters()]) for student in students
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
