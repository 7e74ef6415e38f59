"""Threads of a command do not spin for long; what the user says about them holds."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import ctypes, sys
from mlkd.output.process import own_process
own_process()
assert "torch" not in sys.modules
ctypes.CDLL(sys.argv[1])
"""
"""What torch's own OpenMP reads when it is loaded after a command has begun, shown by itself."""


@pytest.mark.parametrize(
    ("set_before", "policy", "spins"),
    [
        ({}, "PASSIVE", "10000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE", None),
        ({"GOMP_SPINCOUNT": "7"}, "PASSIVE", "7"),
    ],
)
def test_the_threads_of_a_command_wait_asleep(
    set_before: dict[str, str], policy: str, spins: str | None
) -> None:
    torch = importlib.util.find_spec("torch")
    assert torch is not None and torch.origin is not None
    library = Path(torch.origin).with_name("lib") / "libgomp.so.1"
    if not library.is_file():
        pytest.skip("this torch has another OpenMP")
    usual = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(library)],
        env=usual | {"OMP_DISPLAY_ENV": "VERBOSE"} | set_before,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = dict(re.findall(r"(OMP_WAIT_POLICY|GOMP_SPINCOUNT) = '(\w+)'", done.stderr))
    assert found["OMP_WAIT_POLICY"] == policy
    if spins is not None:
        assert found["GOMP_SPINCOUNT"] == spins
    else:
        assert int(found["GOMP_SPINCOUNT"]) > 10_000
