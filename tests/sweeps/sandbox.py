"""A real SLURM cluster of one node on this machine, for tests.

It is started by ``slurm-up.sh``, which is looked for in ``$MLKD_SLURM`` and in ``../shared/slurm``
beside the repository; without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = Path(os.environ.get("MLKD_SLURM", REPOSITORY.parent / "shared" / "slurm"))
ARRAY_LIMIT = 3
"""The most jobs of an array."""
SETTINGS = f"""
MaxArraySize={ARRAY_LIMIT}
PartitionName=short Nodes=ALL MaxTime=1 State=UP
"""


@contextmanager
def running_cluster() -> Iterator[dict[str, str]]:
    """Environment of a running cluster with small limits."""
    if not (SCRIPTS / "slurm-up.sh").is_file():
        pytest.skip(f"no cluster can be started: {SCRIPTS / 'slurm-up.sh'} is not there")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    options = ["--dir", folder, "--cpus", "4", "--acct", "none"]
    starting = FileLock(Path(tempfile.gettempdir(), "mlkd-slurm-up.lock"))
    with starting:
        options += ["--port", str(free_port())]
        started = subprocess.run(
            ["timeout", "600", "bash", SCRIPTS / "slurm-up.sh", *options],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if started.returncode != 0:
        pytest.skip(f"no cluster can be started: {started.stderr[-300:]}")
    settings = (folder / "env.sh").read_text().replace("export ", "")
    environment = {
        **os.environ,
        **dict(line.split("=", 1) for line in shlex.split(settings)),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    with (folder / "slurm.conf").open("a") as file:
        file.write(SETTINGS)
    slurm(environment, "scontrol", "reconfigure")
    try:
        yield environment
    finally:
        down = ["bash", SCRIPTS / "slurm-down.sh", "--dir", folder, "--purge"]
        subprocess.run(down, capture_output=True, timeout=120, check=True)


def free_port() -> int:
    """Where slurmctld may listen; slurmd takes the tenth port after it, srun's are 1000 on."""
    taken = Path("/proc/net/tcp").read_text()
    ports = range(26817, 60000, 3000)
    return next(p for p in ports if f":{p:04X} " not in taken and f":{p + 10:04X} " not in taken)


def slurm(cluster: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command, env=cluster, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def record_of(output: Path) -> dict[str, Any]:
    (path,) = (output / "multirun").glob("*/sweep.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def wait_for(what: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if value := what():
                return value
        except (ValueError, OSError, subprocess.CalledProcessError):
            pass  # not there yet, or SLURM is busy
        time.sleep(0.1)
    raise AssertionError("it did not come")
