"""Who a process is, so that others can tell later whether it still lives."""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from functools import cache
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
