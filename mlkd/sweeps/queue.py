"""What SLURM says: the user's jobs and why they wait, its limits, how a job ended."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from mlkd.output.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE = 60.0
"""Seconds in which a refusal that may pass is tried again,"""
_PAUSE = 5.0
"""with so many between two tries."""
_PASSES = re.compile(
    r"unable to contact|standby mode|timed out|temporarily|transport endpoint|zero bytes"
    r"|connection (refused|reset)|unexpected message",
    re.IGNORECASE,
)
"""Refusals that have to do with the controller and not with the job."""
_TURN = {"Priority", "Resources"}
"""Reasons between which a waiting job changes with the jobs before it."""
_WORDS = {
    "Dependency": "until the job has finished that makes what they share",
    "JobArrayTaskLimit": "for others of their array (hydra.launcher.array_parallelism)",
    "BeginTime": "for the time at which SLURM runs a requeued job again",
    "JobHeldUser": "held by their user; scontrol release lets them go on",
    "job requeued in held state": "scontrol release lets them go on",
    "launch failed requeued held": "they could not be started; scontrol release tries again",
    "JobHeldAdmin": "held by an administrator",
    "DependencyNeverSatisfied": "what they wait for has failed: they never start",
    "PartitionTimeLimit": "hydra.launcher.timeout_min is above what the partition allows",
    "PartitionNodeLimit": "trainer.nodes is above what the partition allows",
    "PartitionConfig": "they ask for more than a node of the partition has: they never start so",
    "BadConstraints": "no node is as hydra.launcher.constraint says: they never start so",
    "PartitionDown": "the partition takes jobs but starts none",
    "PartitionInactive": "the partition starts no jobs",
}
"""What SLURM's reasons mean here."""
_ENDS = {
    "OUT_OF_MEMORY": "was killed for its memory; give more as hydra.launcher.mem_gb",
    "TIMEOUT": "reached its time limit before it could save and be requeued",
    "NODE_FAIL": "was lost with its node",
    "CANCELLED": "was cancelled",
    "PREEMPTED": "was preempted and not requeued",
}
"""How a job ended, by the state that SLURM gives it."""


@dataclass(frozen=True)
class Place:
    """A job in the queue."""

    state: str
    """In SLURM's words, such as ``PENDING``."""
    reason: str
    """Why it waits, in SLURM's words; without meaning for a job that runs."""


def queued_jobs() -> dict[str, Place]:
    """The user's jobs that wait or run, by number: ``<array>_<task>`` for those of an array.

    Raises:
        UserError: There is no cluster, or it does not answer.
    """
    if shutil.which("sbatch") is None:
        raise UserError("SLURM: there is no sbatch here; hydra/launcher=local needs none")
    listed = _ask("squeue", "--me", "--array", "--noheader", "--format=%i|%T|%r")
    jobs = (line.split("|", 2) for line in listed.splitlines() if line.count("|") >= 2)
    return {number.strip(): Place(state, reason.strip()) for number, state, reason in jobs}


def array_limit() -> int:
    """The most jobs of one array.

    Raises:
        UserError: SLURM does not answer.
    """
    return read_array_limit(_ask("scontrol", "show", "config"))


def read_array_limit(config: str) -> int:
    """The same from what ``scontrol show config`` prints.

    ``MaxArraySize`` is one more than the highest index, and an array starts at 0;
    ``max_array_tasks`` may allow fewer. 0 and 1 leave no arrays.
    """
    found = re.findall(r"^MaxArraySize\s*=\s*(\d+)|\bmax_array_tasks=(\d+)", config, re.MULTILINE)
    return max(1, min((int(a or b) for a, b in found), default=1001))


def how_ended(number: str) -> str | None:
    """How a job ended, in words; None if SLURM does not know it any more or says nothing new."""
    for command in (
        ("scontrol", "show", "job", number, "--oneliner"),
        ("sacct", "--noheader", "--allocations", "--parsable2", "--format=State", "-j", number),
    ):
        with suppress(UserError):
            if (words := read_end(_ask(*command))) is not None:
                return words
    return None


def read_end(told: str) -> str | None:
    """The same from what ``scontrol show job`` or ``sacct`` prints."""
    state = re.search(r"\bJobState=(\w+)", told) or re.match(r"(\w+)", told)
    return None if state is None else _ENDS.get(state.group(1))


def patiently(act: Callable[[], T]) -> T:
    """Do what asks SLURM for something, again for a minute if the refusal may pass.

    Raises:
        UserError: It is refused for good, or still after a minute.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return act()
        except UserError as error:
            if not _PASSES.search(str(error)) or time.monotonic() > end:
                raise
            log.warning("%s; try again for a minute", error)
        time.sleep(_PAUSE)


class Waits:
    """Says why jobs wait, and says it again only when the reason is another one."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def news(self, places: Mapping[str, Place]) -> list[str]:
        """Lines on the jobs that wait for another reason than they did when last asked.

        Args:
            places: All jobs in the queue that matter, by number.
        """
        waiting = {n: place.reason for n, place in places.items() if place.state == "PENDING"}
        new: dict[str, list[str]] = {}
        for number, reason in waiting.items():
            words = "Priority or Resources" if reason in _TURN else reason
            if words == "None":  # SLURM has not looked at it yet
                waiting[number] = self._said.get(number, "")
            else:
                waiting[number] = words
                if self._said.get(number) != words:
                    new.setdefault(words, []).append(number)
        self._said = waiting
        return [waiting_line(numbers, reason) for reason, numbers in new.items()]


def waiting_line(numbers: list[str], reason: str) -> str:
    """Which jobs wait and why, in a line."""
    more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    meaning = meaning_of(reason)
    return (
        f"waiting on SLURM: {', '.join(numbers[:3])}{more}: {reason}"
        f"{f' ({meaning})' if meaning else ''}"
    )


def meaning_of(reason: str) -> str:
    """What one of SLURM's reasons means here; empty where it speaks for itself."""
    if reason.startswith(("QOS", "Assoc")):
        return "a limit of the account or of hydra.launcher.qos"
    if reason.startswith(("ReqNodeNotAvail", "Nodes required for job are DOWN")):
        return "nodes are down or reserved; sinfo -R says why"
    return _WORDS.get(reason, "")


def _ask(*command: str) -> str:
    """Output of one of SLURM's commands.

    Raises:
        UserError: It fails or is not there.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (subprocess.SubprocessError, OSError) as error:
        words = getattr(error, "stderr", None) or str(error)
        raise UserError(f"SLURM does not answer: {str(words).strip()[:200]}") from None
    return done.stdout
