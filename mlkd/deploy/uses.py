"""What the vectors of a judged encoder are good for, beside those of its teacher and assistant."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mlkd.deploy.race import assistant_of, run_of
from mlkd.metrics.evaluation import Evaluation
from mlkd.metrics.shorter import Remembered


def remembered(evaluation: Evaluation, folder: Path) -> Remembered:
    """A folder that encodes each sentence once; it is loaded with the first one."""
    return Remembered(partial(evaluation.open(folder).encode, description="evaluate"))


def beside(evaluation: Evaluation, folder: Path, student: Remembered) -> dict[str, Remembered]:
    """Teacher, the assistant if the student's run has one beside it, and the student, by name.

    Args:
        evaluation: What they are judged on.
        folder: Of the student.
        student: The student.
    """
    run = run_of(folder)
    assistant = assistant_of(run) if run else None
    return {
        "teacher": remembered(evaluation, evaluation.teacher),
        **({"assistant": remembered(evaluation, assistant)} if assistant else {}),
        "student": student,
    }
