"""What the vectors of a judged encoder are good for, beside those of its teacher and assistant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlkd.deploy.source import assistant_of, documents_of, run_of
from mlkd.metrics.evaluation import Evaluation
from mlkd.metrics.sets import EvalSet
from mlkd.metrics.shorter import Remembered
from mlkd.metrics.sides import oriented
from mlkd.output.errors import UserError


@dataclass(frozen=True)
class Documents:
    """An encoder of documents whose vectors a student's queries are compared with.

    Attributes:
        folder: Where it is.
        encode: It.
        only_source: Whether it reads no other language than the sets' source, as a teacher does.
    """

    folder: Path
    encode: Remembered
    only_source: bool


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


def open_documents(
    names: Sequence[str], evaluation: Evaluation, folder: Path, known: Mapping[str, Remembered]
) -> dict[str, Documents]:
    """Encoders of documents by name.

    Args:
        names: ``assistant``, ``teacher``, runs or folders.
        evaluation: What they are judged on.
        folder: Of the student.
        known: The student, its teacher and its assistant.

    Raises:
        UserError: There is no such encoder, its vectors have another width than the student's, or
            no set can be scored with it.
    """
    found = {}
    for name in names:
        place = documents_of(name, folder)
        only_source = place is None
        if place is None:
            place = evaluation.teacher
        usual = name in ("assistant", "teacher")
        encode = known[name] if usual else remembered(evaluation, place)
        check_sides(name, evaluation.sets)
        width, own = (e(["one sentence"]).shape[1] for e in (encode, known["student"]))
        check_width(name, width, own)
        found[name] = Documents(place, encode, only_source)
    return found


def check_width(name: str, width: int, student: int) -> None:
    """Refuse documents whose vectors are not in the student's space.

    Raises:
        UserError: They have another width.
    """
    if width != student:
        raise UserError(
            f"documents={name}: its vectors have {width} numbers, the student's {student}; they "
            "cannot be compared"
        )


def check_sides(name: str, sets: Sequence[EvalSet]) -> None:
    """Refuse documents that no evaluation set has any of.

    Raises:
        UserError: No set has a side in a language that their encoder reads.
    """
    if not oriented(sets, only_source=name == "teacher"):
        raise UserError(f"documents={name}: no set has a side in a language that it reads")
