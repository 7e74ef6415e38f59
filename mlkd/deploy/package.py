"""Write every format, measure it in the folder where it lies, and keep what passes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.table import Table
from sentence_transformers import SentenceTransformer

from mlkd.config.commands import ExportConfig, ExportFormat
from mlkd.config.evaluation import EvalConfig, EvalSetConfig
from mlkd.config.inputs import EncoderConfig
from mlkd.data.demo import LANGUAGES
from mlkd.deploy.asymmetric import asymmetric_format
from mlkd.deploy.card import FolderFacts, model_card
from mlkd.deploy.dense import longest
from mlkd.deploy.formats import BATCH, FORMATS, Format, Sides, encoder, sparse_format
from mlkd.deploy.gate import Reference, Refused
from mlkd.deploy.push import push
from mlkd.deploy.results import Exported
from mlkd.deploy.source import Source, base_of, documents_of
from mlkd.deploy.trimming import trim_vocabulary
from mlkd.deploy.uses import check_sides, check_width
from mlkd.deploy.web.folder import web_format
from mlkd.encoders.folder import load_folder
from mlkd.machine.hardware import describe_hardware, device_of
from mlkd.metrics.evaluation import open_encoder_folder
from mlkd.metrics.scoring import Encode, Scores
from mlkd.metrics.sets import EvalSet, first_pairs, load_sets
from mlkd.metrics.shorter import Remembered, check_kinds, score_kinds
from mlkd.metrics.sides import score_sides
from mlkd.metrics.speed import race
from mlkd.output.errors import UserError
from mlkd.storage.files import file_sha256, remove_leftovers, replacing_folder, write_json

log = logging.getLogger(__name__)

_TIMED = 32
"""Sentences that speed is measured with."""

Report = dict[str, Any]
"""What was measured of the weights of a folder, or ``refused`` and why."""


def write_formats(config: ExportConfig, source: Source, target: Path) -> Exported:
    """Write all formats; each is kept or refused by itself.

    Raises:
        UserError: The languages have no dev set, the student has no vectors of such a kind, the
            target cannot be written, or the hub refuses.
    """
    model = load_folder(source.folder)
    width = int(model.get_embedding_dimension() or 0)
    check_kinds(config.vectors, {"student": width})
    settings = eval_settings(config, source)
    common: dict[str, Any] = {"source": source.name}
    written, sets = model, first_pairs(load_sets(settings), settings.max_pairs)
    if config.trim is not None:
        written, common["trim"] = trim_vocabulary(config, source, sets, model)
        sets = sets_in_languages(sets, list(common["trim"]["tokens"]))
    reference = Reference(
        whole=encoder(model),
        written=encoder(written),
        trimmed=written is not model,
        sets=sets,
        known=_known_scores(source),
        bootstrap=settings.bootstrap,
        max_loss=config.max_loss,
        kinds=config.vectors,
    )
    scored = _scores_of_the_run(source, reference)
    hardware = describe_hardware(device_of("cpu"))
    formats: dict[ExportFormat, Format] = dict(FORMATS)
    if "sparse" in config.format:
        base = base_of(source)
        common["base"] = base.parent.name
        formats["sparse"] = sparse_format(base, source.folder.parent)
    if "asymmetric" in config.format:
        formats["asymmetric"] = _with_documents(config, source, width, sets)
    if "web" in config.format:
        formats["web"] = web_format(config, source)
    remove_leftovers(target)
    reports: dict[str, dict[str, Report]] = {}
    for name in config.format:
        log.info("%s: write and measure", name)
        try:
            with replacing_folder(target / name) as part:
                own = {"q4": config.q4} if name == "onnx_q4" else {}
                formats[name].write(written, part, **own)
                reports[name] = _measure(part, formats[name], reference, scored)
                report = common | {"hardware": hardware, "parts": reports[name]}
                report |= formats[name].notes
                if (sides := formats[name].sides) is not None:
                    report["documents"] = _documents(part, sides, reference)
                write_json(part / "export.json", report)
                about = FolderFacts(name, report, longest(written), width, _is_mean(written))
                card = model_card(config, source, about)
                (part / "README.md").write_text(card, encoding="utf-8")
        except Refused as error:
            reports[name] = {formats[name].parts[0].file: {"refused": str(error)}}
    with suppress(OSError):
        target.rmdir()  # nothing passed
    if config.push is not None and (target / config.format[0]).is_dir():
        log.info("pushed: %s", push(target / config.format[0], config.push))
    folders = {name: target / name for name in config.format}
    return Exported({name: at for name, at in folders.items() if at.is_dir()}, reports)


def _with_documents(
    config: ExportConfig, source: Source, width: int, sets: Sequence[EvalSet]
) -> Format:
    """The format ``asymmetric`` with the encoder of documents that is asked for.

    Raises:
        UserError: There is none, its vectors have another width, or no set can be scored with it.
    """
    name = config.documents or "assistant"
    folder = documents_of(name, source.folder)
    if folder is None:
        teacher = source.section("teacher", EncoderConfig)
        if teacher is None:
            raise UserError(f"documents=teacher: {source.name} has no run that says which it is")
        folder = open_encoder_folder(teacher, False, source.cache)
    documents = load_folder(folder)
    check_width(name, int(documents.get_embedding_dimension() or 0), width)
    check_sides(name, sets)
    usual = name in ("assistant", "teacher")
    return asymmetric_format(folder, documents, name if usual else "other encoder")


def _documents(folder: Path, sides: Sides, reference: Reference) -> Report:
    """Scores of the two encoders of a folder together and of each alone, and what cards say."""
    found = score_sides(
        Remembered(sides.queries(folder)),
        Remembered(sides.documents(folder)),
        reference.sets,
        only_source=sides.only_source,
    )
    about = {"name": sides.name, "longest": sides.longest, "prompt": sides.prompt}
    return found | about


def _measure(
    folder: Path, kind: Format, reference: Reference, scored: dict[str, Scores]
) -> dict[str, Report]:
    """Measure each file of weights; what is judged by its scores and fails is left out.

    Args:
        folder: Of the format.
        kind: Its format.
        reference: What it is compared with.
        scored: Scores by content of the weights, of this export; new ones are added.

    Raises:
        Refused: The folder without what fails is none.
    """
    reports: dict[str, Report] = {}
    encoders: dict[str, Encode] = {}
    scores = any(part.scored for part in kind.parts)
    for part in kind.parts:
        encode = part.open(folder)
        report: Report = {"mib": (folder / part.file).stat().st_size / 2**20}
        try:
            report |= reference.compare(encode, part.tolerance, part.expected)
            if part.scored or (reference.trimmed and not scores):
                key = file_sha256(folder / part.file)
                known = Remembered(encode)
                if key not in scored:
                    scored[key] = reference.score(known)
                report["scores"] = scored[key]
                if reference.kinds:
                    report["vectors"] = score_kinds(known, reference.sets, reference.kinds)
                if part.tolerance is None or reference.trimmed:
                    report["dev"] = reference.check_loss(scored[key])
        except Refused as error:
            if part.tolerance is not None or part is kind.parts[0]:
                raise
            (folder / part.file).unlink()
            report = {"refused": str(error)}
        if part.native and "refused" not in report:
            encoders[part.file] = encode
        reports[part.file] = report
    if not encoders:
        return reports
    for file, times in race(encoders, reference.texts[:_TIMED], BATCH, passes=3).items():
        reports[file] |= times
    return reports


def eval_settings(config: ExportConfig, source: Source) -> EvalConfig:
    """The evaluation sets: those asked for, those of the run, or the demo's."""
    demo = EvalSetConfig(kind="sts", split="dev", format="demo", languages=[*LANGUAGES])
    chosen = config.eval or source.section("eval", EvalConfig)
    return chosen or EvalConfig(sets={"sts_dev": demo})


def sets_in_languages(sets: list[EvalSet], languages: list[str]) -> list[EvalSet]:
    """The sets whose both sides are in some languages.

    Raises:
        UserError: None of them is a dev set.
    """
    pairs = {f"{a}-{b}" for a in languages for b in languages}
    kept = [item for item in sets if item.pair in pairs]
    if not any(item.split == "dev" for item in kept):
        raise UserError(
            f"trim.languages={languages}: no dev set of eval is in them; give eval=<option>"
        )
    return kept


def _known_scores(source: Source) -> Scores | None:
    """Scores of the student in its run's record, if they were measured as an export's are."""
    metrics = source.record.get("metrics", {})
    return metrics.get("scores") if metrics.get("precision") == "fp32" else None


def _scores_of_the_run(source: Source, reference: Reference) -> dict[str, Scores]:
    """Scores that the run measured, by the content of the weights that it measured them of."""
    known = reference.known
    if known is None or reference.trimmed or not reference.is_scored(known):
        return {}
    return {file_sha256(source.folder / "model.safetensors"): known}


def _is_mean(model: SentenceTransformer) -> bool:
    """Whether the vector is the mean of the last hidden states, but for its length."""
    kinds = [type(module).__name__ for module in list(model)[1:]]
    only = kinds in (["Pooling"], ["Pooling", "Normalize"])
    return only and bool(model[1].pooling_mode == "mean")


def table(reports: dict[str, dict[str, Report]]) -> Table:
    """A line for each file of weights."""
    result = Table("format", "weights", "MiB", "max difference", "min cosine", "dev change", "")
    for name, parts in reports.items():
        for file, report in parts.items():
            if "refused" in report:
                result.add_row(name, file, "-", "-", "-", "-", f"refused: {report['refused']}")
                continue
            dev = report.get("dev")
            result.add_row(
                name,
                file,
                f"{report['mib']:.2f}",
                f"{report['max_difference']:.1e}",
                f"{report['cosine']['min']:.5f}",
                f"{dev['export'] - dev['student']:+.2f}" if dev else "-",
                "kept",
            )
    return result
