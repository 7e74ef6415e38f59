"""``python -m mlkd.report [<folder> ...]``: compare runs; ``select``: the best within a budget."""

from __future__ import annotations

import sys
from pathlib import Path

from mlkd.config.commands import ReportConfig
from mlkd.config.compose import run
from mlkd.output.errors import UserError


def main(config: ReportConfig) -> None:
    """Write the report, or name the selected student."""
    from mlkd.reporting.collect import collect

    cells = collect(config.sources)
    if config.action == "select":
        from mlkd.reporting.compare import select
        from mlkd.reporting.tables import describe

        assert config.budget_mib is not None
        print(describe(select(cells, config.budget_mib)))
        return
    source = Path(config.sources[0]).expanduser()
    source = source.parent if source.name == "sweep.json" else source
    folder = Path(config.output).expanduser() if config.output else source / "report"
    try:
        if config.action == "dashboard":
            from mlkd.reporting.dashboard import publish

            print(f"dashboard: {publish(cells, folder, config.entity)}")
        else:
            from mlkd.reporting.build import build

            print(f"report: {build(cells, folder, title=', '.join(config.sources))}")
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing; pip install -e '.[report]'") from None


def as_overrides(words: list[str]) -> list[str]:
    """The command line in Hydra's grammar: an action and folders may stand without a key."""
    bare = [word for word in words if "=" not in word and not word.startswith(("-", "+", "~"))]
    rest = [word for word in words if word not in bare]
    if bare and bare[0] in {"select", "dashboard"}:
        rest.insert(0, f"action={bare[0]}")
        bare = bare[1:]
    if bare:
        quoted = ("'" + word.replace("'", r"\'") + "'" for word in bare)
        rest.append(f"sources=[{','.join(quoted)}]")
    return rest


if __name__ == "__main__":
    sys.argv[1:] = as_overrides(sys.argv[1:])
    run("report", ReportConfig, main)
