"""What is exported and where it goes; free of torch, so that wrong input is refused at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from mlkd.config.commands import ExportConfig, ExportFormat
from mlkd.config.inputs import DataConfig
from mlkd.config.paths import OUTPUTS, encoder_at, user_path
from mlkd.config.section import Section
from mlkd.output.errors import UserError
from mlkd.output.extras import need
from mlkd.runs.record import chain_of, check_outputs, read_record

_NEEDED = {
    "portable": ("onnx", "onnxruntime"),
    "onnx_int8": ("onnx", "onnxruntime"),
    "onnx_q4": ("onnx", "onnxruntime"),
    "gguf": ("gguf",),
    "web": ("onnx", "onnxruntime"),
}
"""Packages of the extra ``export`` by format."""

Config = TypeVar("Config", bound=Section)

_MODULE_CONFIG = "mlkd_config.json"
"""Written by every student, by no other sentence encoder."""


@dataclass(frozen=True)
class Source:
    """An encoder that is ready to be exported.

    Attributes:
        name: Id of the run, or name of the folder.
        folder: The encoder.
        record: ``run.json`` of its run; empty for a folder without one.
    """

    name: str
    folder: Path
    record: dict[str, Any]

    @property
    def cache(self) -> Path:
        """Where the pairs and tokens of its run are; ``outputs/cache`` for a folder without one."""
        if not self.record:
            return Path(OUTPUTS, "cache")
        return self.folder.parents[2] / "cache"

    def section(self, name: str, schema: type[Config]) -> Config | None:
        """A section of the configuration of the run; None for a folder without one.

        Raises:
            UserError: It is that of another version.
        """
        return section_of(self.record, name, schema, f"run={self.folder.parent}")


def section_of(
    record: Mapping[str, Any], name: str, schema: type[Config], shown: str
) -> Config | None:
    """A section of the configuration in a run record; None where there is none.

    Keys that have been dropped since the run was made are left out.

    Args:
        record: The record, or {}.
        name: Of the section.
        schema: What it was validated against.
        shown: What the message says of the run.

    Raises:
        UserError: It is that of another version.
    """
    found = (record.get("config") or {}).get(name)
    if found is None:
        return None
    try:
        return schema.model_validate({k: found[k] for k in found if k in schema.model_fields})
    except (ValidationError, TypeError):
        raise UserError(
            f"{shown}: the {name} in its run.json is of another version; give {name}=<option>"
        ) from None


def checked_source(config: ExportConfig) -> tuple[Source, Path]:
    """The encoder to export and the folder of the results; everything that needs no torch is right.

    Raises:
        UserError: Something is wrong or missing.
    """
    source = open_source(config.run)
    target = target_folder(config, source)
    check_packages(config.format)
    check_inputs(config, source)
    return source, target


def open_source(run: str) -> Source:
    """Find the encoder of a run folder, of the ``student`` in it, or of a student folder.

    Raises:
        UserError: The run is unfinished or damaged, or the folder is no student.
    """
    folder = user_path(run).absolute()  # "." has a name, too
    if not folder.is_dir():
        raise UserError(f"run={run}: no such folder; give a finished run or a student folder")
    owner = folder if (folder / "run.json").is_file() else folder.parent
    if (owner / "run.json").is_file() and (owner is folder or folder.name == "student"):
        return _of_run(owner)
    if not ((folder / "modules.json").is_file() and (folder / _MODULE_CONFIG).is_file()):
        raise UserError(
            f"run={run}: no student (it has no run.json, and not both modules.json and "
            f"{_MODULE_CONFIG}); give a finished run or a student folder"
        )
    return Source(folder.name, folder, {})


def _of_run(folder: Path) -> Source:
    record = read_record(folder)
    try:
        status, name = record["status"], record["id"]
    except KeyError:
        raise UserError(f"{folder / 'run.json'}: no run record") from None
    if status != "finished":
        raise UserError(
            f"run={folder}: the run is unfinished ({status}); "
            "the command that started it goes on with it"
        )
    check_outputs(folder, record)
    return Source(name, folder / "student", record)


def target_folder(config: ExportConfig, source: Source) -> Path:
    """Folder that gets a folder a format.

    Raises:
        UserError: It holds something else, or one of the formats already.
    """
    given = config.output
    target = Path(given) if given else Path(OUTPUTS, "export", source.name)
    if not target.exists():
        return target
    if not target.is_dir():
        raise UserError(f"output={target}: a file; give a new or an empty folder")
    others = set(get_args(ExportFormat)) - set(config.format)
    names = (path.name for path in target.iterdir())
    found = sorted(n for n in names if n not in others and not n.endswith(".part"))
    if found:
        raise UserError(f"output={target}: not empty ({found[0]}); give a new or an empty folder")
    return target


def base_of(source: Source) -> Path:
    """The encoder that the sparse difference of a run is applied to.

    Raises:
        UserError: The run has made none, or the encoder is no longer there.
    """
    if "diff" not in source.record.get("outputs", {}):
        raise UserError(f"format sparse: {source.name} is no run that made a sparse difference")
    start = source.record["inputs"].get("start", {}).get("run")
    base = source.folder.parents[1] / str(start) / "student"
    if start is None or not base.is_dir():
        raise UserError(
            f"format sparse: {base if start else source.name}: what the run started from, to "
            "which its difference is applied, is no run in its folder"
        )
    return base


def languages_of(data: DataConfig | None) -> list[str]:
    """Languages of the pairs of a student; none of one that does not say."""
    if data is None:
        return []
    both = [x for c in data.corpora.values() for x in (c.source, *c.targets)]
    sources = {c.source for c in data.corpora.values()}
    wanted = set(both) if data.languages is None else sources | set(data.languages)
    return sorted(wanted)


def check_packages(formats: Iterable[ExportFormat]) -> None:
    """Refuse a format whose packages are not installed.

    Raises:
        UserError: A package of the extra ``export`` is missing.
    """
    for name in formats:
        need(_NEEDED.get(name, ()), "export", f"format {name}")


def assistant_of(run: Path) -> Path | None:
    """The trained assistant that the student of a run imitates; None if none is beside it.

    Raises:
        UserError: The record of the run is damaged.
    """
    records = {run: read_record(run)}
    with suppress(LookupError, TypeError):
        imitated = run.parent / records[run]["compared"]["assistant"]
        if imitated != run and (imitated / "student").is_dir():
            return imitated / "student"
    for other in sorted(run.parent.glob("*/run.json")):
        with suppress(UserError):  # of a run that has nothing to do with it, or its chain ends here
            records[other.parent] = read_record(other.parent)
    first = chain_of(run, records)[0]
    found = first != run and not records[first].get("trains_student", True)
    return first / "student" if found else None


def run_of(student: Path) -> Path | None:
    """The run whose hand-over a folder is."""
    run = student.absolute().parent
    return run if student.name == "student" and (run / "run.json").is_file() else None


def documents_of(documents: str, student: Path) -> Path | None:
    """Folder of the encoder of documents that a student's queries are compared with.

    Args:
        documents: ``assistant``, that of the student's run; ``teacher``; or a folder or a run.
        student: Folder of the student.

    Returns:
        None for the teacher, which may have to come from a hub.

    Raises:
        UserError: The student has no run with an assistant beside it, or the folder holds no
            encoder.
    """
    if documents == "teacher":
        return None
    if documents == "assistant":
        run = run_of(student)
        found = assistant_of(run) if run else None
        if found is None:
            raise UserError(
                f"documents=assistant: {run or student} has no assistant beside it that its chain "
                "has trained; give documents=<folder> or documents=teacher"
            )
        return found
    folder = encoder_at(documents)
    if not (folder / "modules.json").is_file():
        raise UserError(
            f"documents={documents}: no encoder; give assistant, teacher, a run or a "
            "sentence-transformers folder"
        )
    return folder


def check_inputs(config: ExportConfig, source: Source) -> None:
    """Refuse formats that need more than the exported encoder where it is not there.

    Raises:
        UserError: A base, an encoder of documents, or the runtime or the texts of a page are
            missing, or do not fit.
    """
    from mlkd.deploy.web.inputs import check_page  # needs this module

    if "sparse" in config.format:
        base_of(source)
    if "asymmetric" in config.format:
        documents_of(config.documents or "assistant", source.folder)
    if "web" in config.format:
        check_page(config, source)
