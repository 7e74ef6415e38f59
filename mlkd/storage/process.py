"""Who a process is, so that others can tell later whether it still lives; and its memory.

psutil would tell when a process was started by the wall clock, so that a living process would be
taken for another one once the clock has been set, and it knows no peak of memory on Linux.
"""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from functools import cache
from math import isnan
from pathlib import Path


@cache
def machine() -> str:
    """Where a pid means something: host name, boot and pid namespace, as one short hash."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # no Linux: the host name has to do
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def started(pid: int) -> int | None:
    """When a process of this machine started (clock ticks since boot); None = it is gone.

    Together with the pid it names a process for good, although pids are used again. Where the
    system does not tell, the answer is 0 for every living process.
    """
    try:
        # The name in parentheses may hold blanks; state is the first field after it, start the 20th
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 0


def resident_mib(field: str) -> float:
    """A field of ``/proc/self/status`` in MiB; NaN where there is none.

    ``ru_maxrss`` would include the parent's.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) / 1024 if found else float("nan")


def peak_memory_mib() -> int | None:
    """Largest resident memory of this process so far; None where the system does not tell."""
    peak = resident_mib("VmHWM")
    return None if isnan(peak) else round(peak)
