"""Runs the links that a stage needs, in order, and reports what came out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

from mlkd.config.schema import TrainConfig
from mlkd.machine import ranks
from mlkd.metrics.scoring import select_value
from mlkd.metrics.table import rows_of, to_markdown
from mlkd.recipes.chain import Chain, open_chain
from mlkd.recipes.link import run_link
from mlkd.recipes.recipe import Link, Made, links, references
from mlkd.recipes.result import Result, Show
from mlkd.runs.index import finished_runs
from mlkd.runs.record import Run
from mlkd.storage.files import replacing
from mlkd.training.wandb_logger import summarise, wandb_run

log = logging.getLogger(__name__)

Announce = Callable[[Run], None]
"""Told each link's run before it starts."""


def run_chain(
    config: TrainConfig, announce: Announce | None = None, show: Show | None = None
) -> Result:
    """Run what ``config.stage`` needs; the table of results is in the folder of the last run.

    Args:
        config: The chain.
        announce: Told each link's run before it starts.
        show: Told the results.

    Returns:
        What the last link left, in each process of a run the same.
    """
    wanted = links(config)
    with ranks.join_ranks(config.trainer):
        chain = open_chain(config)
        chain.measure_references()
        run_links(chain, wanted, announce, show)
        first = ranks.is_first()
        scores = ranks.from_first(chain.measured[config.stage]["scores"] if first else None)
        runs = [chain.runs[link.name] for link in wanted]
        folders = tuple(run.folder for run in runs)
        return Result(runs[-1].student, scores, select_value(scores), folders)


def run_links(
    chain: Chain,
    wanted: Sequence[Link],
    announce: Announce | None = None,
    show: Show | None = None,
) -> None:
    """Run the first links of a chain; the last link of all reports."""
    config, first = chain.config, ranks.is_first()
    check_groups(chain, wanted)
    for link in wanted:
        with wandb_run(config.logger) if first else nullcontext():
            run = run_link(chain, link, announce)
            if first and link.name == config.stage:
                _report(chain, run, show)
            if first and config.logger.kind == "wandb":
                summarise(run, artifact=config.logger.artifact)


def check_groups(chain: Chain, wanted: Iterable[Link]) -> None:
    """See whether there are the batches by group of links that have no finished run.

    Raises:
        UserError: A group has no pair, or too few places in a batch.
    """
    grouped = [link for link in wanted if link.settings.grouping is not None]
    finished = finished_runs(Path(chain.config.output_dir)) if grouped else {}
    for link in grouped:
        if chain.keys[link.name] not in finished:
            chain.reads(link).check_groups()


def _report(chain: Chain, run: Run, show: Show | None) -> None:
    """Time the models, show the results and write them into the folder of the last run."""
    config, measured = chain.config, chain.measured
    compared = list(references(config))
    # In turns, in one race: times of other days and machines do not compare. All students of a
    # chain have one shape, so that the last one is enough.
    timed = {name: chain.folders[name] for name in (*compared, config.stage)}
    for name, values in chain.evaluation.cached_speed(timed, chain.cache).items():
        measured[name] = measured[name] | values
    with chain.lock(run):
        known = {name: measured[name] for name in compared}
        made = {n: r.link for n, r in references(config).items() if isinstance(r, Made)}
        run.write(
            "finished",
            metrics=measured[config.stage],
            references=known,
            compared={name: chain.runs[link].id for name, link in made.items()},
        )
    rows = rows_of(measured)
    if show is not None:
        show(rows)
    with replacing(run.folder / "table.md") as part:
        part.write_text(to_markdown(rows), encoding="utf-8")
    log.info("table: %s", run.folder / "table.md")
