from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sandbox import REPOSITORY

from mlkd.output.errors import UserError
from mlkd.sweeps.__main__ import main
from mlkd.sweeps.job import _logging_to
from mlkd.sweeps.local import _memory_kills, _note_death
from mlkd.sweeps.logs import logs_of, worth_reading
from mlkd.sweeps.pace import Pace
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.status import counts, driver_of, standings, sweeps_of, this_process


def entry(identity: str, status: str = "missing", **more: Any) -> dict[str, Any]:
    base = {"id": identity, "overrides": {"seed": identity[-1]}, "status": status, "error": None}
    return base | {"job": None, "score": None, "seconds": None} | more


@pytest.fixture
def record(tmp_path: Path) -> SweepRecord:
    """A sweep of five cells, one finished, one failed."""
    cells = [entry("c0", "finished", score=71.24), entry("c1", "failed", error="it broke")]
    content = {
        "name": "seeds", "command": "python -m mlkd.train -m seed=0,1,2,3,4", "launcher": "local",
        "shared": [entry("shared-a", "finished", overrides={})],
        "cells": [*cells, entry("c2"), entry("c3", error="stopped by SIGTERM"), entry("c4")],
    }  # fmt: skip
    found = SweepRecord(tmp_path / "out" / "multirun" / "seeds-0")
    found.folder.mkdir(parents=True)
    found.path.write_text(json.dumps(content))
    return found


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mlkd.sweeps", *words], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, timeout=60,
    )  # fmt: skip


def test_the_command_says_where_each_cell_stands(record: SweepRecord) -> None:
    with record.running("c2"):
        done = command(str(record.folder.parents[1]))
    assert done.returncode == 0, done.stderr
    first, *lines, last = done.stdout.splitlines()
    assert first == (f"{record.folder}: 5 cells: 1 finished, 1 running, 1 failed, 2 missing")
    assert [line.split() for line in lines] == [
        ["shared-a", "finished"],
        ["c0", "finished", "seed=0", "dev", "71.2"],
        ["c1", "failed", "seed=1", "it", "broke"],
        ["c2", "running", "seed=2", "process", str(os.getpid()), "on", os.uname().nodename],
        ["c3", "missing", "seed=3", "stopped", "by", "SIGTERM"],
        ["c4", "missing", "seed=4"],
    ]
    assert last.endswith("this does: python -m mlkd.train -m seed=0,1,2,3,4")


def test_without_a_sweep_it_is_refused_in_a_line(tmp_path: Path) -> None:
    done = command(str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path}: no sweep in it; give an output folder or a multirun folder\n"
    )
    (tmp_path / "sweep.json").write_text("{")
    done = command(str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "damaged (not JSON)" in done.stderr


@pytest.mark.parametrize(
    "change",
    [
        "[]", "5", "[" * 100_000, "\xff", "cells=5", "cells=[5]",
        '{"name": "x"}', 'cells=[{"id": "c0"}]',
        "launcher=null", "shared=null", "command=1",
    ],
)  # fmt: skip
def test_an_odd_record_is_refused_in_a_line(
    record: SweepRecord, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    """The other sweeps of the folder are shown."""
    key, equals, value = change.partition("=")
    text = json.dumps(record.read() | {key: json.loads(value)}) if equals else change
    odd = SweepRecord(record.folder.with_name("odd"))
    odd.folder.mkdir()
    odd.path.write_text(text, encoding="latin-1")
    assert main([str(record.folder.parents[1])]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {odd.path}: ")
    assert shown.err.count("\n") == 1
    assert shown.out.startswith(f"{record.folder}: 5 cells: 1 finished, 1 failed, 3 missing\n")


def test_an_odd_driver_is_none(record: SweepRecord) -> None:
    here = this_process()["machine"]
    for driver in (5, "x", [], {"machine": here}, {"machine": here, "pid": "x", "start": None}):
        assert driver_of({"driver": driver}) is None


def test_a_record_that_cannot_be_read_is_refused_in_a_line(record: SweepRecord) -> None:
    record.path.unlink()
    record.path.mkdir()
    with pytest.raises(UserError, match=r"sweep\.json: cannot be read \(Is a directory\)$"):
        record.read()
    done = command("~nobody-is-called-so/x")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "there is no such user" in done.stderr


def test_ctrl_c_has_its_status(record: SweepRecord) -> None:
    """It waits for the content of a pipe."""
    record.path.unlink()
    os.mkfifo(record.path)
    code = (
        "import runpy, sys, mlkd.sweeps.status as status; from pathlib import Path; "
        "from mlkd.sweeps.record import SweepRecord; "
        "status.sweeps_of = lambda folder: [SweepRecord(Path(folder))]; "
        f"sys.argv = ['mlkd.sweeps', {str(record.folder)!r}]; "
        "print('ready', flush=True); runpy.run_module('mlkd.sweeps', run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    writer = os.open(record.path, os.O_WRONLY)  # as soon as it is opened for reading
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    os.close(writer)
    assert (process.returncode, err) == (130, "interrupted (SIGINT)\n")


def test_it_imports_nothing_that_takes_long() -> None:
    code = "import sys, mlkd.sweeps.__main__; print([*sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert not {"torch", "hydra", "pydantic", "transformers", "submitit"} & set(eval(done.stdout))


def test_what_waits_for_its_driver_is_queued(record: SweepRecord) -> None:
    content = record.read()
    assert driver_of(content) is None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine = this_process()
    from mlkd.storage.process import started

    driver = mine | {"pid": child.pid, "start": started(child.pid)}
    record.path.write_text(json.dumps(content | {"driver": driver}))
    found = {standing.id: standing.word for standing in standings(record)}
    # What was stopped in this call is not started again by it.
    assert (found["c2"], found["c3"], found["c4"]) == ("queued", "missing", "queued")
    child.kill()
    child.wait()
    assert driver_of(record.read()) is None
    assert counts(standings(record)) == "5 cells: 1 finished, 1 failed, 3 missing"
    # On another machine nobody can tell.
    record.path.write_text(json.dumps(content | {"driver": mine | {"machine": "other"}}))
    assert driver_of(record.read()) is None


def test_without_an_answer_of_slurm_its_jobs_are_unknown(
    record: SweepRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.update("c2", job="7_0")
    monkeypatch.setenv("PATH", str(tmp_path))  # as on a machine that is not of the cluster
    found = {standing.id: standing for standing in standings(record)}
    words = [found[name].word for name in ("c0", "c1", "c2", "c3", "c4")]
    assert words == ["finished", "failed", "unknown", "missing", "missing"]
    assert found["c2"].detail == "SLURM: there is no sbatch here; hydra/launcher=local needs none"


def test_sweeps_are_found(record: SweepRecord, tmp_path: Path) -> None:
    for place in (record.path, record.folder, tmp_path / "out"):
        assert [found.folder for found in sweeps_of(place)] == [record.folder]
    with pytest.raises(UserError, match="no sweep"):
        sweeps_of(tmp_path)


def test_the_log_with_the_traceback_comes_first(record: SweepRecord) -> None:
    entries = record.entries()
    assert logs_of(record, entries["c1"]) == []
    for name, text in {
        "logs/c1.log": "12:00 start\n12:01 error: it broke\n",
        "slurm/9_1_0_log.err": "Traceback (most recent call last):\nJobFailed: it broke\n",
        "logs/c2.log": "12:00 start\n",
        "logs/c2.out": "",
        "logs/c4.log": "12:00 start\n",
        "logs/c4.out": "Traceback (most recent call last):\nMemoryError\n",
    }.items():
        path = record.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    # Its own log has the reason; SLURM's shows where the launcher noticed it.
    record.update("c1", job="9_1")
    record.update("c4", status="failed")
    entries = record.entries()
    names = [path.name for path in logs_of(record, entries["c1"])]
    assert names == ["c1.log", "9_1_0_log.err"]
    # One that was not started has none; the traceback is worth more than the line without.
    found = worth_reading(record, [entries[name] for name in ("c1", "c2", "c3", "c4")])
    assert [path.name for _, path in found] == ["c4.out", "c1.log", "c2.log"]


def test_the_pace_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("mlkd.sweeps.pace.time.monotonic", lambda: now[0])
    pace = Pace(8)
    assert pace.news(0, 2) == "0 of 8 jobs done, 2 running"
    assert pace.news(0, 2) is None
    now[0] += 5
    assert pace.news(0, 3) is None  # said seldom while none ends
    now[0] += 1195
    # Two in twenty minutes: six an hour, six left.
    assert pace.news(2, 2) == "2 of 8 jobs done, 2 running, 6 an hour, about 60 min left"
    assert pace.news(8, 0) == "8 of 8 jobs done, 0 running"


def test_what_killed_a_process_is_said(record: SweepRecord) -> None:
    out = record.log("c2").with_suffix(".out")
    _note_death(record, "c2", -signal.SIGSEGV, False)
    assert record.entries()["c2"]["error"] == f"was killed by SIGSEGV; see {out}"
    _note_death(record, "c4", 3, True)
    assert "ended with status 3 and no word" in record.entries()["c4"]["error"]
    _note_death(record, "c3", -signal.SIGKILL, True)  # it had said why it ended
    assert record.entries()["c3"]["error"] == "stopped by SIGTERM"


def test_a_memory_kill_is_called_so(record: SweepRecord) -> None:
    """By the system itself, in a control group of its own."""
    group = Path("/sys/fs/cgroup/memory/mlkd-test")
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text("60000000")
    except OSError:
        pytest.skip("no control group of version 1 can be made here")
    try:
        before = _memory_kills()
        code = f"open('{group}/cgroup.procs', 'w').write('0'); bytearray(200_000_000)"
        status = subprocess.run([sys.executable, "-c", code], check=False).returncode
        assert status == -signal.SIGKILL
        _note_death(record, "c2", status, _memory_kills() > before)
    finally:
        time.sleep(0.1)
        group.rmdir()
    assert record.entries()["c2"]["error"].startswith("was killed for its memory; fewer")


def test_a_job_in_this_process_leaves_the_level_of_logging(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, child = logging.getLogger(), logging.getLogger("somebody.else")
    caplog.set_level(logging.ERROR)
    with _logging_to(tmp_path / "job.log"):
        assert child.isEnabledFor(logging.INFO)
        child.info("said")
    assert root.level == logging.ERROR
    assert not child.isEnabledFor(logging.INFO)  # it keeps what it was asked before
    assert (tmp_path / "job.log").read_text().endswith("said\n")
