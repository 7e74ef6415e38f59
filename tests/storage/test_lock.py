"""Locks between real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlkd.output.errors import Interrupted
from mlkd.storage.lock import Lock, holder

WORKER = """
import logging, sys, time
from pathlib import Path
from mlkd.storage.seals import sealed
from mlkd.storage.lock import Lock
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
folder = Path(sys.argv[1])
def make(part):
    inside = folder.with_name("inside")
    inside.open("x").close()  # fails if another process is inside
    time.sleep(2)
    (part / "result").write_text("once")
    inside.unlink()
    print("made")
print("ready", flush=True)
sys.stdin.read(1)
with Lock(folder.with_name("lock"), waiting_for="the link", patience=1e6):
    print((sealed(folder, make) / "result").read_text())
"""


def start(code: str, *arguments: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def dead_lock(path: Path) -> subprocess.Popen[str]:
    """A lock whose process was killed."""
    code = """
import sys, time
from pathlib import Path
from mlkd.storage.lock import Lock
with Lock(Path(sys.argv[1]), waiting_for=""):
    print("locked", flush=True)
    time.sleep(600)
"""
    process = start(code, path)
    assert process.stdout and process.stdout.readline() == "locked\n"
    process.kill()
    process.communicate()
    assert path.exists()
    return process


@pytest.mark.parametrize("before", ["free", pytest.param("dead", marks=pytest.mark.slow)])
def test_ten_processes_one_works_nine_wait_and_reuse(tmp_path: Path, before: str) -> None:
    if before == "dead":
        dead_lock(tmp_path / "lock")
    workers = [start(WORKER, tmp_path / "folder") for _ in range(10)]
    for worker in workers:
        assert worker.stdout and worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("x")
        worker.stdin.flush()
    said = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 10, said
    assert sum("made" in text for text in said) == 1
    assert sum("once" in text for text in said) == 10
    waited = [text for text in said if "waiting for the link: process " in text]
    assert len(waited) >= 8  # the last ones may come when it is already free
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder"]


def test_lock_of_a_dead_process_is_taken_over_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    process = dead_lock(tmp_path / "lock")
    with Lock(tmp_path / "lock", waiting_for="it", patience=1e6):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert f"took over the lock of it from process {process.pid}" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_pid_that_is_used_again_is_not_taken_for_the_dead_owner(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock", waiting_for="it"):
        owner = json.loads((tmp_path / "lock").read_text())
    (tmp_path / "lock").write_text(json.dumps(owner | {"started": owner["started"] - 1}))
    with Lock(tmp_path / "lock", waiting_for="it", patience=1e6):
        pass


@pytest.mark.parametrize(
    "content",
    [json.dumps({"host": "elsewhere", "machine": "x", "pid": os.getpid()}), "", "[1"],
    ids=["whole", "empty", "cut"],
)
def test_lock_of_another_machine_holds_as_long_as_it_shows_life(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    path.write_text(content)
    os.utime(path, (0, 0))  # a clock that is decades behind
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] < 3.0:
            os.utime(path, (clock[0], clock[0]))

    own = SimpleNamespace(monotonic=lambda: clock[0], time=lambda: clock[0], sleep=sleep)
    monkeypatch.setattr("mlkd.storage.lock.time", own)
    with Lock(path, waiting_for="it", patience=1.0):
        assert 3.8 < clock[0] < 4.5  # the last sign of life, and a second of patience


def test_a_lock_of_another_machine_counts_as_held_for_minutes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(json.dumps({"host": "elsewhere", "machine": "x", "pid": 5}))
    for age, word in ((60, "process 5 on elsewhere"), (3600, None)):
        os.utime(path, (time.time() - age,) * 2)
        assert holder(path) == word


def test_a_process_whose_lock_was_taken_over_stops(tmp_path: Path) -> None:
    def stop(number: int, frame: object) -> None:
        raise Interrupted("SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with (
            pytest.raises(Interrupted),
            Lock(tmp_path / "lock", waiting_for="it", beat=0.05),
        ):
            (tmp_path / "other").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
            (tmp_path / "other").replace(tmp_path / "lock")
            while True:
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert json.loads((tmp_path / "lock").read_text())["host"] == "elsewhere"


def test_lock_of_a_zombie_is_taken_over_at_once(tmp_path: Path) -> None:
    """A killed process that nobody has waited for, as under a first process that reaps nothing."""
    code = (
        "import sys, time; from pathlib import Path; from mlkd.storage.lock import Lock\n"
        "with Lock(Path(sys.argv[1]), waiting_for=''): print('locked', flush=True); time.sleep(600)"
    )
    process = start(code, tmp_path / "lock")
    assert process.stdout and process.stdout.readline() == "locked\n"
    process.kill()
    begun = time.monotonic()
    with Lock(tmp_path / "lock", waiting_for="it", patience=1e6):
        assert time.monotonic() - begun < 20
    process.communicate()
