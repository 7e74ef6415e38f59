from __future__ import annotations

from pathlib import Path

import pytest

from mlkd.output.errors import UserError
from mlkd.sweeps import queue
from mlkd.sweeps.arrays import make_arrays
from mlkd.sweeps.queue import (
    Place,
    Waits,
    meaning_of,
    patiently,
    read_array_limit,
    read_end,
)


@pytest.mark.parametrize(
    ("jobs", "limit", "parallel", "expected"),
    [
        (0, 4, 9, []),
        (4, 4, 9, [(0, 4, 9, None)]),
        (5, 4, 9, [(0, 2, 5, None), (2, 5, 4, None)]),
        (9, 3, 2, [(0, 3, 1, None), (3, 6, 1, None), (6, 9, 1, 0)]),
        (5, 2, 1, [(0, 1, 1, None), (1, 3, 1, 0), (3, 5, 1, 1)]),
        (2, 1, 8, [(0, 1, 4, None), (1, 2, 4, None)]),
    ],
)
def test_jobs_are_spread_over_arrays(
    jobs: int, limit: int, parallel: int, expected: list[tuple[int, int, int, int | None]]
) -> None:
    arrays = make_arrays(jobs, limit, parallel)
    assert [(a.start, a.stop, a.parallel, a.after) for a in arrays] == expected


def test_arrays_keep_to_both_limits() -> None:
    for jobs in range(40):
        for limit in range(1, 9):
            for parallel in range(1, 9):
                arrays = make_arrays(jobs, limit, parallel)
                covered = [job for a in arrays for job in range(a.start, a.stop)]
                assert covered == list(range(jobs))
                assert all(1 <= a.stop - a.start <= limit and a.parallel >= 1 for a in arrays)
                # What runs at a time: of each row of arrays that wait for each other, one.
                rows: dict[int, int] = {}
                for index, a in enumerate(arrays):
                    rows[index] = a.parallel if a.after is None else rows.pop(a.after)
                    assert rows[index] == a.parallel
                assert sum(rows.values()) == (parallel if jobs else 0)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ("MaxArraySize            = 1001\nMaxDBDMsgs              = 20008\n", 1001),
        (
            "MaxArraySize            = 200\nSchedulerParameters     = a=1,max_array_tasks=50\n",
            50,
        ),
        ("MaxArraySize            = 0\n", 1),
        ("", 1001),
    ],
)
def test_the_limit_of_arrays_is_read(config: str, limit: int) -> None:
    assert read_array_limit(config) == limit


def test_a_reason_is_said_when_it_changes() -> None:
    waits = Waits()
    held, runs = Place("PENDING", "JobHeldUser"), Place("RUNNING", "None")
    unseen = Place("PENDING", "None")
    numbers = [f"7_{i}" for i in range(5)]
    many = dict.fromkeys(numbers, Place("PENDING", "Priority"))
    assert waits.news({"1": unseen, "2": runs}) == []
    (first, second) = waits.news({"1": held, "2": runs, **many})
    assert first == (
        "waiting on SLURM: 1: JobHeldUser (held by their user; scontrol release lets them go on)"
    )
    assert second == "waiting on SLURM: 7_0, 7_1, 7_2 and 2 more: Priority or Resources"
    # Nothing new: the first of the line waits for resources, the others for it.
    changed = many | {"7_0": Place("PENDING", "Resources"), "7_1": runs}
    assert waits.news({"1": held, **changed}) == []
    # A moment without a reason is no news either; another reason is.
    assert waits.news({"1": unseen}) == []
    assert waits.news({"1": held}) == []
    assert len(waits.news({"1": Place("PENDING", "PartitionTimeLimit")})) == 1
    assert len(waits.news({"1": held})) == 1


def test_reasons_with_a_limit_or_nodes_in_them_are_explained() -> None:
    assert "account" in meaning_of("QOSMaxJobsPerUserLimit") == meaning_of("AssocGrpCpuLimit")
    assert "sinfo -R" in meaning_of("ReqNodeNotAvail, UnavailableNodes:n1")
    assert meaning_of("Licenses") == ""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that passes only by sleeping."""
    now = [0.0]
    monkeypatch.setattr(queue.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(queue.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_what_may_pass_is_tried_again_for_a_minute(clock: list[float]) -> None:
    # As SLURM 22.05 says it when its controller is away.
    away = "Batch job submission failed: Unable to contact slurm controller (connect failure)"
    calls = []

    def act() -> str:
        calls.append(clock[0])
        if clock[0] < 9:
            raise UserError(f"hydra/launcher=slurm: sbatch refused: {away}")
        return "done"

    assert patiently(act) == "done"
    assert calls == [0, 5, 10]
    clock[0] = -1000  # never comes back
    with pytest.raises(UserError, match="Unable to contact"):
        patiently(act)
    assert -940 <= clock[0] <= -930


@pytest.mark.parametrize(
    "words",
    [
        "invalid partition specified: typo",
        "Batch job submission failed: Job violates accounting/QOS policy (job submit limit)",
        "Batch job submission failed: Invalid job array specification",
    ],
)
def test_what_is_refused_for_good_is_not_tried_again(words: str, clock: list[float]) -> None:
    calls = []

    def act() -> None:
        calls.append(words)
        raise UserError(words)

    with pytest.raises(UserError):
        patiently(act)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("OUT_OF_MEMORY", "was killed for its memory; give more as hydra.launcher.mem_gb"),
        ("NODE_FAIL", "was lost with its node"),
        ("FAILED", None),
    ],
)
def test_the_end_of_a_job_is_named(state: str, words: str | None) -> None:
    assert read_end(f"JobId=7 JobName=x JobState={state} Reason=None ExitCode=0:125\n") == words
    assert read_end(f"{state}\n") == words
    assert read_end("") is None


def test_without_a_cluster_the_queue_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch here"):
        queue.queued_jobs()
