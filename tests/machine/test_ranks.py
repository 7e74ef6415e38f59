from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning as L
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import Command, configure, link_settings, tiny_settings, weights
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn

from mlkd.config.losses import LossConfig
from mlkd.config.schema import TrainConfig
from mlkd.config.training import TrainerConfig
from mlkd.encoders.folder import load_folder
from mlkd.losses import build_loss
from mlkd.losses.gather import gather_ranks
from mlkd.losses.vectors import PairVectors
from mlkd.machine import ranks
from mlkd.machine.cluster import job_number
from mlkd.machine.processes import together
from mlkd.output.errors import UserError
from mlkd.output.started import is_first_here, started_processes
from mlkd.recipes.chain import open_chain
from mlkd.recipes.recipe import links
from mlkd.runs.record import Run
from mlkd.stages.base import Stage
from mlkd.training.fit import Training, fit

REPOSITORY = Path(__file__).parents[2]
# Each process of a test is a copy of one that has imported these: that takes seconds.
multiprocessing.set_forkserver_preload(["mlkd.recipes.run"])
# Sums of two processes are added up in another order. A larger eps keeps AdamW from blowing this up
# to a whole step where a gradient is next to nothing.
LINEAR = "optim.eps=1e-2"
HRKD = [
    "recipe=hrkd", "stages.domains.max_steps=6", "stages.domains.epochs=9999",
    "stages.domains.batch_size=16",
    "+data.corpora.songs={format:tsv,path:songs.tsv,targets:[de],domain:songs}",
]  # fmt: skip
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


COLUMNS = torch.arange(40.0).reshape(5, 8)


def gradient_by_columns(rank: int) -> Tensor:
    """The gradient of a rank's rows where it lies in memory column by column."""
    rows = joined_batch()["source"][rank::2].requires_grad_()
    (gather_ranks(rows).T * COLUMNS).sum().backward()
    assert rows.grad is not None
    return rows.grad


def work(rank: int, store: str, results: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    values = [loss_and_gradient(config, rank, 2) for config in LOSSES]
    torch.save((values, gradient_by_columns(rank)), f"{results}.{rank}")
    dist.destroy_process_group()


def test_two_ranks_have_the_loss_and_gradients_of_one_with_the_joined_batch(
    tmp_path: Path,
) -> None:
    results = str(tmp_path / "store"), str(tmp_path / "result")
    mp.start_processes(work, results, nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"result.{rank}") for rank in (0, 1))
    for rank, (_, gradient) in enumerate((first, second)):
        expected = 2 * COLUMNS.T[4 * rank : 4 * rank + 4]  # each of both has the same loss
        torch.testing.assert_close(gradient, expected.double())
    first, second = first[0], second[0]
    for number, config in enumerate(LOSSES):
        loss, gradient = loss_and_gradient(config, 0, 1)
        mean = (first[number][0] + second[number][0]) / 2
        torch.testing.assert_close(mean, loss, msg=str(config))
        torch.testing.assert_close(first[number][1], gradient, msg=str(config))
        torch.testing.assert_close(second[number][1], gradient, msg=str(config))


def draw(rank: int, store: str, results: str) -> None:
    """Random numbers after saving, after loading that, and after loading what one process saved."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(rank)
    model: Any = nn.Linear(1, 1)
    stage, saved = Stage(model, link_settings("sentence", {"pair_mse": {}}), 1), dict[str, Any]()
    stage.on_save_checkpoint(saved)
    found, batch = [torch.rand(3)], cast(Any, None)
    for states in (saved["rng"], saved["rng"][:1]):
        stage.on_load_checkpoint({"rng": states})
        stage.on_train_batch_start(batch, 0)
        found.append(torch.rand(3))
    torch.save(found, f"{results}.{rank}")
    dist.destroy_process_group()


def test_each_process_goes_on_with_its_own_random_numbers(tmp_path: Path) -> None:
    given = str(tmp_path / "store"), str(tmp_path / "result")
    mp.start_processes(draw, given, nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"result.{rank}") for rank in (0, 1))
    assert torch.equal(first[0], first[1]) and torch.equal(second[0], second[1])
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[2], first[0]) and torch.equal(second[2], first[0])


@pytest.fixture
def tiny_overrides(encoder_folder: Path, corpus: Path, tmp_path: Path) -> list[str]:
    return tiny_settings(encoder_folder, corpus, tmp_path / "out", 3)


def places() -> list[dict[str, str]]:
    """What torchrun would tell each of two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]


class Last(L.Callback):
    """Keeps the weights after the last step, and what was logged of the batches."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        self.weights[f"loss {trainer.global_step}"] = trainer.callback_metrics["train/loss"]

    def on_train_end(self, trainer: L.Trainer, module: Any) -> None:
        self.weights |= {name: p.detach().clone() for name, p in module.named_parameters()}


def train_stage_one(config: TrainConfig) -> dict[str, Tensor]:
    last = Last()
    with ranks.join_ranks(config.trainer):
        chain = open_chain(config)
        link = links(config)[0]
        run = Run(Path(config.output_dir, "runs"), link.name, link.settings.stage, {})
        training = Training(chain.reads(link), run, False, config.logger, {}, None)
        fit(training, load_folder(chain.given["base"]), last)
    return last.weights


def train_with_others(
    rank: int, config: TrainConfig, around: list[dict[str, str]], results: str
) -> None:
    os.environ |= around[rank]
    torch.save(train_stage_one(config), f"{results}.{rank}")


@pytest.mark.enable_socket
def test_two_processes_end_with_the_weights_of_one(
    tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    alone = train_stage_one(tiny(LINEAR, f"output_dir={tmp_path / 'alone'}"))
    start = dict(load_folder(next((tmp_path / "alone" / "cache").glob("assistant-*"))).state_dict())
    two = tiny(LINEAR, "trainer.devices=2")
    mp.start_processes(
        train_with_others, (two, places(), str(tmp_path / "result")),
        nprocs=2, start_method="forkserver",
    )  # fmt: skip
    first, second = (torch.load(tmp_path / f"result.{rank}") for rank in (0, 1))
    moved = 0.0
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, atol=1e-6, rtol=1e-4)
        before = start.get(name.removeprefix("model."))
        if before is not None and before.shape == expected.shape:
            moved = max(moved, float((expected - before).abs().max()))
    assert moved > 1e-4


def run_chain(
    overrides: list[str], around: list[dict[str, str]], *launcher: str
) -> list[subprocess.Popen[str]]:
    """The same command in each place; a process without a place is alone, or what it launches."""
    base = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    return [
        subprocess.Popen(
            [sys.executable, *launcher, "-m", "mlkd.train", *overrides], env=base | place,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for place in around
    ]  # fmt: skip


def ended(processes: list[subprocess.Popen[str]], status: int) -> str:
    try:
        printed = [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [status] * len(processes), printed
    return printed[0]


@pytest.mark.enable_socket
def test_the_first_process_does_not_wait_for_one_that_has_failed() -> None:
    code = (
        "import time; from mlkd.config.schema import TrainerConfig; "
        "from mlkd.machine import processes; processes._GRACE = 0.1\n"
        "with processes.together(TrainerConfig(devices=3), ['-c', 'raise SystemExit(3)']): "
        "time.sleep(100)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "process 1 of this run ended with status 3\n"


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(900)
@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("stages", "more"),
    [
        (("assistant", "bottleneck"), []),
        (("assistant", "domains"), HRKD),
    ],
)
def test_a_chain_of_two_processes_is_a_chain_of_one(
    tiny_overrides: list[str], tmp_path: Path, stages: tuple[str, str], more: list[str]
) -> None:
    from mlkd.recipes import run

    alone, two = tmp_path / "alone", tmp_path / "two"
    of_links = tuple(f"stages.{name}." for name in stages)
    known = [x for x in tiny_overrides if not x.startswith("stages.") or x.startswith(of_links)]
    (root,) = (Path(x.removeprefix("data.root=")) for x in known if x.startswith("data.root="))
    rows = (f"they sing {i}\tsie singen {i}\n" for i in range(120))
    (root / "songs.tsv").write_text("".join(rows), encoding="utf-8")
    words = [*known, LINEAR, f"stage={stages[-1]}", *more]
    run.run_chain(configure(*words, f"output_dir={alone}"))
    both = [*words, "trainer.devices=2", f"output_dir={two}"]
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert ended(run_chain(both, [{}], *torchrun), 0).count(": ran (") == 2
    for stage in stages:
        expected, found = weights(alone, stage), weights(two, stage)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-4)
    # A plain command starts the other process itself. What the first one refuses ends the other.
    assert ended(run_chain(both, [{}]), 0).count(": reused (") == 2
    (damaged,) = two.glob("runs/assistant-*/student/model.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    refused = ended(run_chain(both, [{}]), 2)
    assert refused.count("error: ") == 1 and "model.safetensors" in refused
    assert "Traceback" not in refused


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(900)
@pytest.mark.enable_socket
def test_two_processes_stop_together_and_go_on(tiny_overrides: list[str], tmp_path: Path) -> None:
    """SIGTERM reaches the second one alone."""
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    common = [
        *tiny_overrides, "stage=assistant", "trainer.devices=2", "stages.assistant.max_steps=300",
        "stages.assistant.dropout=0.1", "trainer.save_steps=10", "trainer.save_cost=1",
    ]  # fmt: skip
    ended(run_chain([*common, f"output_dir={calm}"], places()), 0)
    command = [*common, f"output_dir={disturbed}"]
    processes = run_chain(command, places())
    deadline = time.monotonic() + 200
    while not list(disturbed.glob("runs/*/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    ended(processes, 143)
    assert "assistant: resumed (" in ended(run_chain(command, places()), 0)
    expected, found = weights(calm, "assistant"), weights(disturbed, "assistant")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


STEP = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("around", "found", "speaks"),
    [
        ({}, 1, True),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, 2, False),
        ({"RANK": "4", "WORLD_SIZE": "8", "LOCAL_RANK": "0"}, 8, True),
        (STEP, 2, False),
        (STEP | {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}, 4, True),
        # A batch script without srun, as SLURM 22.05 has it.
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, 1, True),
    ],
)
def test_how_a_process_was_started(
    around: dict[str, str], found: int, speaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in around.items():
        monkeypatch.setenv(name, value)
    assert (started_processes(), is_first_here()) == (found, speaks)
    if found == 1:
        assert type(ranks.cluster_environment()) in (type(None), LightningEnvironment)
    else:
        with (
            pytest.raises(UserError, match=f"needs 1 processes, but .* has started {found}"),
            together(TrainerConfig(), []),
        ):
            pass
        with pytest.raises(UserError, match="needs 1 processes"), ranks.join_ranks(TrainerConfig()):
            pass
    with together(TrainerConfig(devices=found), []):
        assert started_processes() == found


def test_a_task_of_an_array_is_not_taken_for_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    assert job_number() == "3"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "3")  # as SLURM 22.05 tells the last of three tasks
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert job_number() == "3_2"


def test_missing_files_are_refused_before_other_processes_start(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlkd.machine.processes.together", None)
    done = command("mlkd.train", "trainer.devices=2", "data=tsv", "data.root=nowhere")
    assert done.returncode == 2
    assert "no nowhere/pairs.en-de.tsv.gz" in done.stderr


@pytest.mark.enable_socket
def test_a_refusal_is_one_line_of_all_processes(
    tiny_overrides: list[str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes where one is asked for, a wrong setting, a sweep."""
    for words in ([], ["trainer.devices=2", "student.layers=9"], ["-m", "seed=0,1"]):
        said = []
        for place in places():
            for name, value in place.items():
                monkeypatch.setenv(name, value)
            done = command("mlkd.train", *tiny_overrides, *words)
            assert done.returncode == 2
            said.append(done.stdout + done.stderr)
        assert said[0].startswith("error: ") and said[0].count("\n") == 1
        assert said[1] == ""


@pytest.mark.enable_socket
def test_the_first_process_starts_and_ends_the_others(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; folder, seconds = sys.argv[1:]; "
        "names = 'RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_PORT'; "
        "text = ' '.join(os.environ[name] for name in names); "
        "Path(folder, os.environ['RANK']).write_text(text); time.sleep(float(seconds))"
    )
    before = dict(os.environ)
    config = TrainerConfig(devices=3)
    with together(config, ["-c", code, str(tmp_path), "0"]):
        assert started_processes() == 3 and ranks.cluster_environment() is not None
        port = os.environ["MASTER_PORT"]
    assert dict(os.environ) == before
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"1": f"1 1 3 {port}", "2": f"2 2 3 {port}"}
    # They may wait for a first one that has failed.
    started = time.monotonic()
    with pytest.raises(UserError, match="x"), together(config, ["-c", code, str(tmp_path), "99"]):
        raise UserError("x")
    assert time.monotonic() - started < 20
    assert dict(os.environ) == before
    with (
        pytest.raises(UserError, match="needs 6 processes; start them with"),
        together(TrainerConfig(devices=3, nodes=2), []),
    ):
        pass


def test_the_number_of_processes_is_checked(tiny: Callable[..., TrainConfig]) -> None:
    with (
        pytest.raises(UserError, match="needs 2 processes, not 1"),
        ranks.join_ranks(TrainerConfig(devices=2)),
    ):
        pass
    with pytest.raises(UserError, match=r"batch_size=16 must be a multiple of .* = 3"):
        tiny("trainer.devices=3")
