"""A full disk, a read-only folder, a kill while writing: what was there before stays valid."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command, weights

from mlkd.config.schema import TrainConfig
from mlkd.output.errors import UserError
from mlkd.storage.files import new_array, remove_leftovers, replacing, replacing_folder, write_json


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes; writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_on_full_disks(config: TrainConfig, sizes: list[int]) -> list[str]:
    """Run a chain again and again, each time with another limit; gives what it says."""
    from mlkd.recipes.run import run_chain

    output, messages = Path(config.output_dir), []
    for size in sizes:
        with largest_file(size), pytest.raises(UserError) as error:
            run_chain(config)
        messages.append(str(error.value))
        for record in (output / "runs").glob("*/run.json"):
            json.loads(record.read_text())
        assert not list(output.rglob("*.part"))
    return messages


@pytest.mark.slow
def test_full_disk_at_every_file_is_one_line_and_harms_nothing(
    tiny: Callable[..., TrainConfig], finished_assistant: Path, tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    expected = weights(finished_assistant, "assistant")
    again = tiny("trainer.save_steps=2", f"output_dir={tmp_path / 'again'}", stage="assistant")
    files = [p for p in finished_assistant.rglob("*") if p.is_file()]
    # Just too small for each file that the chain writes, the training state (larger) included.
    sizes = sorted({p.stat().st_size - 1 for p in files if p.stat().st_size > 300})
    tried = [*sizes[:: max(1, len(sizes) // 12)], sizes[-1], 2 * sizes[-1]]
    # In a process of its own: the limit would also hold for what pytest and its threads write.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        messages = pool.submit(run_on_full_disks, again, tried).result()
    assert len(messages) == len(tried)
    for message in messages:
        assert "\n" not in message
        assert f"{tmp_path / 'again'}/" in message
        assert "cannot be written (" in message
        assert "File too large" in message
    for name in ("cache/pairs-", "cache/assistant-", "last.ckpt"):
        assert any(name in message for message in messages)
    run_chain(again)
    resumed = weights(tmp_path / "again", "assistant")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_space_of_an_array_is_taken_before_it_is_filled(tmp_path: Path) -> None:
    with largest_file(1000), pytest.raises(OSError, match="too large"):
        new_array(tmp_path / "a.npy", np.float32, (1000,))


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a file system nobody may write to")
@pytest.mark.parametrize("words", [["seed=0"], ["-m", "seed=0,1"]], ids=["chain", "sweep"])
def test_a_folder_that_cannot_be_written_is_one_line_and_status_two(
    words: list[str], command: Command
) -> None:
    done = command("mlkd.train", *words, "debug=tiny", "output_dir=/sys/mlkd")
    assert done.returncode == 2, done.stderr
    assert "error: /sys/mlkd" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr


def test_read_only_files_stay_and_the_path_is_named(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"state": "old"})
    user = os.geteuid()
    for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest's own folders are private
        folder.chmod(0o755)
    tmp_path.chmod(0o555)
    if user == 0:
        os.seteuid(65534)  # the superuser may write anywhere
    try:
        with pytest.raises(UserError, match="cannot be written") as error:
            write_json(path, {"state": "new"})
        assert str(path) in str(error.value)
        with pytest.raises(UserError, match="cannot be written"), replacing_folder(tmp_path / "f"):
            pass
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o755)
    assert json.loads(path.read_text()) == {"state": "old"}


def test_a_file_written_within_a_folder_names_the_folder(tmp_path: Path) -> None:
    """Not its temporary path, which nobody can look at afterwards."""

    def write_into(folder: Path) -> None:
        (folder / "file").write_text("")
        write_json(folder / "file/below", {})

    with pytest.raises(UserError) as error, replacing_folder(tmp_path / "target") as part:
        write_into(part)
    assert str(error.value) == f"{tmp_path / 'target/file/below'}: cannot be written (File exists)"
    with pytest.raises(UserError) as error, replacing_folder(tmp_path / "target") as part:
        raise UserError(f"{part}/model.onnx: no graph")
    assert str(error.value) == f"{tmp_path / 'target/model.onnx'}: no graph"
    with pytest.raises(UserError) as error, replacing_folder(tmp_path / "target"):
        write_into(tmp_path)
    assert str(error.value) == f"{tmp_path / 'file/below'}: cannot be written (File exists)"


def test_a_kill_while_writing_leaves_the_old_file_and_is_cleaned_up(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", "old")
    code = f"""
import os, signal
from pathlib import Path
from mlkd.storage.files import replacing, replacing_folder
folder = Path({str(tmp_path)!r})
with replacing(folder / "file.json") as part, replacing_folder(folder / "cache") as inner:
    part.write_text('"ne')
    (inner / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*.part"))) == 2
    assert json.loads((tmp_path / "file.json").read_text()) == "old"
    with replacing(tmp_path / "mine") as mine:
        mine.write_text("of a living process")
        remove_leftovers(tmp_path)
        assert mine.is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.json", "mine"]
