"""``python -m mlkd.report [<folder> ...]``: compare runs; ``select``: the best within a budget."""

from __future__ import annotations

import sys
from pathlib import Path

from mlkd.config.commands import ReportConfig
from mlkd.config.compose import run
from mlkd.config.paths import user_path
from mlkd.config.quoting import bare_words, listed
from mlkd.output.extras import missing


def main(config: ReportConfig) -> None:
    """Write the report, or name the selected student."""
    from mlkd.reporting.collect import collect

    cells = collect(config.sources)
    if config.action == "select":
        from mlkd.reporting.compare import select
        from mlkd.reporting.tables import describe_student

        assert config.budget_mib is not None
        print(describe_student(select(cells, config.budget_mib)))
        return
    source = user_path(config.sources[0])
    source = source.parent if source.name == "sweep.json" else source
    folder = Path(config.output) if config.output else source / "report"
    try:
        if config.action == "dashboard":
            from mlkd.reporting.dashboard import publish

            print(f"dashboard: {publish(cells, folder, config.entity)}")
        else:
            from mlkd.reporting.build import write_report

            print(f"report: {write_report(cells, folder, title=', '.join(config.sources))}")
    except ModuleNotFoundError as error:
        raise missing(str(error.name), "report", "a report") from None


def as_overrides(words: list[str]) -> list[str]:
    """The command line in Hydra's grammar: an action and folders may stand without a key."""
    bare, rest = bare_words(words)
    if bare and bare[0] in {"select", "dashboard"}:
        rest.insert(0, f"action={bare.pop(0)}")
    return [*rest, listed("sources", bare)] if bare else rest


if __name__ == "__main__":
    sys.argv[1:] = as_overrides(sys.argv[1:])
    run("report", ReportConfig, main)
