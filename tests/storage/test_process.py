"""What a process says about itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlkd.storage.process import peak_memory_mib, resident_mib


def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it() -> None:
    child = "from mlkd.storage.process import peak_memory_mib; print(peak_memory_mib())"
    parent = (
        "import subprocess, sys; block = b'x' * (300 << 20);"
        "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent, child], capture_output=True, text=True, check=True
    )
    assert 5 < int(done.stdout) < 150


def test_the_peak_stays_when_memory_is_given_back() -> None:
    block = b"x" * (100 << 20)
    high = resident_mib("VmRSS")
    assert high > 100 and len(block)
    del block
    peak = peak_memory_mib()
    assert peak is not None and peak >= high - 1


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", refused)
    assert peak_memory_mib() is None
