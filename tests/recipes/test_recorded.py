"""Numbers of the default chain that no rearrangement of the code may move.

``python tests/recipes/test_recorded.py`` records them anew; they say on what they
were recorded.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

RECORD = Path(__file__).with_suffix(".json")
STEPS = 12
OVERRIDES = [
    "debug=tiny",
    "trainer.precision=fp32",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    f"limits.max_steps={STEPS}",
]


@contextmanager
def losses_by_link() -> Iterator[dict[str, list[float]]]:
    """Collect the loss of every training step by the run it belongs to."""
    from mlkd.stages.base import Stage

    found: dict[str, list[float]] = {}
    step = Stage.training_step

    def training_step(self: Stage, batch: Any, batch_idx: int) -> Any:
        loss = step(self, batch, batch_idx)
        run = Path(self.trainer.default_root_dir).name.rpartition("-")[0]
        found.setdefault(run, []).append(float(loss))
        return loss

    Stage.training_step = training_step  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        Stage.training_step = step  # type: ignore[method-assign]


def measure(output: Path) -> dict[str, Any]:
    """Train the default chain for some steps: losses, dev losses, hashes of the weights."""
    from hydra import compose

    from mlkd.config.compose import composing, validate
    from mlkd.config.schema import TrainConfig
    from mlkd.machine.hardware import describe_hardware
    from mlkd.recipes.run import run_chain
    from mlkd.storage.files import file_sha256

    with composing():
        config = validate(compose("train", [*OVERRIDES, f"output_dir={output}"]), TrainConfig)
    threads = torch.get_num_threads()
    with losses_by_link() as losses:
        run_chain(config)
    links = {}
    for name, values in losses.items():
        (folder,) = (output / "runs").glob(f"{name}-*")
        curve = json.loads((folder / "run.json").read_text())["training"]["curve"]
        links[name] = {
            "losses": values,
            "dev": [point["dev/loss"] for point in curve],
            "weights": file_sha256(folder / "student" / "model.safetensors"),
        }
    hardware = describe_hardware(torch.device("cpu"))
    torch.set_num_threads(threads)
    kernels = torch.backends.cpu.get_cpu_capability()  # equal names, other instructions
    found = {"hardware": hardware, "kernels": kernels, "torch": torch.__version__}
    return {**found, "links": links}


@pytest.mark.slow
def test_the_default_recipe_gives_the_recorded_losses_and_students(tmp_path: Path) -> None:
    recorded, found = json.loads(RECORD.read_text()), measure(tmp_path)
    assert list(found["links"]) == list(recorded["links"])
    same = all(found[key] == recorded[key] for key in recorded.keys() - {"links"})
    for name, expected in recorded["links"].items():
        link = found["links"][name]
        assert len(link["losses"]) == STEPS
        # Another processor adds up in another order, which some steps make larger.
        for kind in ("losses", "dev"):
            wanted = expected[kind] if same else pytest.approx(expected[kind], rel=2e-3)
            assert link[kind] == wanted, (name, kind)
        if same:
            assert link["weights"] == expected["weights"], name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        RECORD.write_text(json.dumps(measure(Path(folder)), indent=1) + "\n")
    sys.stdout.write(RECORD.read_text())
