"""A finished chain that is given again: what it made, without torch or any other large import."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlkd.config.schema import TrainConfig
from mlkd.metrics.table import rows_of
from mlkd.output.errors import UserError
from mlkd.recipes.identity import link_keys
from mlkd.recipes.recipe import Link, Made, New, links, references
from mlkd.recipes.result import Result, Show
from mlkd.runs.index import Finished, finished_runs
from mlkd.runs.record import check_outputs, read_record

log = logging.getLogger(__name__)


def made_before(config: TrainConfig, show: Show | None = None) -> Result | None:
    """What a chain made when it was finished, if all of it is still there.

    Args:
        config: The chain.
        show: Told the results.

    Returns:
        None if anything has to be looked at again, as after a change of a setting, a file or the
        code, or if a file of a run is damaged.
    """
    if config.trainer.processes > 1 or config.logger.kind == "wandb":
        return None
    keys, runs = link_keys(config), Path(config.output_dir, "runs")
    known = finished_runs(Path(config.output_dir))
    wanted = {link.name: link for link in links(config)}
    if not all(keys[name] in known for name in wanted):
        return None
    chain = {name: known[keys[name]] for name in wanted}
    last = chain[config.stage]
    if not last.is_reported or last.score is None:
        return None
    records: dict[str, dict[str, Any]] = {}
    with suppress(UserError):  # a damaged run: the chain says so
        records = {name: _whole(runs, run) for name, run in chain.items()}
    last_record = records.get(config.stage, {})
    compared = {n: r.link for n, r in references(config).items() if isinstance(r, Made)}
    now = {name: chain[link].id for name, link in compared.items()}
    table = runs / last.id / "table.md"
    if not (records and last_record.get("compared") == now and table.is_file()):
        return None
    if not all(_fits(record, records, _made(wanted[name])) for name, record in records.items()):
        return None
    for name, record in records.items():
        log.info("%s: reused (finished %s), %s", name, record["finished"], runs / record["id"])
    if show is not None:
        measured = dict(records[config.stage]["references"])
        for name, record in records.items():
            measured.setdefault(name, record["metrics"])
        show(rows_of(measured))
    student = runs / last.id / "student"
    log.info("table: %s", table)
    folders = tuple(runs / run.id for run in chain.values())
    return Result(student, last_record["metrics"]["scores"], last.score, folders)


def _made(link: Link) -> set[str]:
    """The inputs of a link that other links make; the settings' key has the files of the others."""
    sources = {
        "source" if isinstance(source, New) else role: getattr(source, "source", source)
        for role, source in link.inputs.items()
    }
    return {role for role, source in sources.items() if isinstance(source, Made)}


def _fits(
    record: dict[str, Any], records: dict[str, dict[str, Any]], inputs: Collection[str]
) -> bool:
    """Whether what links made for a run is what is there now."""
    made = {r["id"]: r["outputs"] for r in records.values()}
    return all(
        entry["content"] in [out["content"] for out in made.get(entry["run"], {}).values()]
        for role, entry in record["inputs"].items()
        if role in inputs
    )


def _whole(runs: Path, run: Finished) -> dict[str, Any]:
    """The record of a run whose files are those that it wrote."""
    record = read_record(runs / run.id)
    check_outputs(runs / run.id, record)
    return record
