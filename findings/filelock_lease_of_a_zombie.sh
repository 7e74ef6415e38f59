#!/bin/bash
# filelock 4.2.11: SoftFileLease frees the lock of a killed process at once only if somebody has
# waited for it; and it takes a lock file that it cannot read within two seconds.
#
# A lease is taken over at once when its owner is provably dead, otherwise after `lease_duration`
# without a sign of life. A killed process whose parent has not waited for it yet (a zombie, as
# under a first process of a container that reaps nothing) still answers to signal 0 and keeps its
# start time, so that it counts as alive for the whole duration. The duration protects readable
# records only: a file of another format counts as malformed and is taken two seconds after it was
# last touched, however long the lease. Programs that share locks with other versions of themselves,
# or whose children may stay zombies, should know both.
#
# Output seen (seconds until the lock was free):
#   killed and waited for           0.2
#   killed, nobody waits            8.0    lease_duration=8
#   another format, touched every 3 s   2.0    lease_duration=60
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check filelock==4.2.11
cat > "$place/main.py" <<'PYTHON'
import os
import subprocess
import sys
import threading
import time

from filelock import SoftFileLease

OWNER = """
import sys, time
from filelock import SoftFileLease
lease = SoftFileLease(sys.argv[1], lease_duration=8)
lease.acquire()
print("held", flush=True)
time.sleep(600)
"""


def seconds(lock, duration):
    start = time.monotonic()
    with SoftFileLease(lock, lease_duration=duration):
        return time.monotonic() - start


def after_a_kill(lock, wait):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, lock], stdout=subprocess.PIPE)
    owner.stdout.readline()
    owner.kill()
    if wait:
        owner.wait()
    found = seconds(lock, 8)
    owner.wait()
    return found


def of_another_format(lock):
    with open(lock, "w") as file:
        file.write('{"host": "elsewhere", "pid": 1}')
    done = threading.Event()

    def live():
        while not done.wait(3):
            os.utime(lock)

    threading.Thread(target=live, daemon=True).start()
    found = seconds(lock, 60)
    done.set()
    return found


os.chdir(sys.argv[1])
reaped, zombie, foreign = after_a_kill("a", True), after_a_kill("b", False), of_another_format("c")
print(f"killed and waited for           {reaped:.1f}")
print(f"killed, nobody waits            {zombie:.1f}    lease_duration=8")
print(f"another format, touched every 3 s   {foreign:.1f}    lease_duration=60")
assert reaped < 2 < 7 < zombie and 1.5 < foreign < 3, "changed"
PYTHON
"$place/env/bin/python" "$place/main.py" "$place"
