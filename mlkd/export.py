"""``python -m mlkd.export run=<run|folder>``: folders that run in a product, each checked."""

from __future__ import annotations

import sys

from mlkd.config.commands import ExportConfig
from mlkd.config.compose import run
from mlkd.deploy.source import checked


def main(config: ExportConfig) -> None:
    """Check the input, then write and check every format; status 1 if one was refused."""
    source, target = checked(config)

    from rich.console import Console

    from mlkd.deploy.package import export, table  # torch and friends, once the input is valid

    reports = export(config, source, target)
    Console(width=120).print(table(reports))
    kept = [name for name in config.format if (target / name).is_dir()]
    print(f"export: {target if kept else 'nothing was kept'}")
    if any("refused" in part for parts in reports.values() for part in parts.values()):
        sys.exit(1)


if __name__ == "__main__":
    run("export", ExportConfig, main)
