"""``python -m mlkd.export run=<run|folder>``: folders that run in a product, each checked."""

from __future__ import annotations

import sys

from rich.console import Console

from mlkd import api
from mlkd.config.commands import ExportConfig
from mlkd.config.compose import run


def main(config: ExportConfig) -> None:
    """Write and check every format, print what was measured; status 1 if one was refused."""
    exported = api.export(config)

    from mlkd.deploy.package import table

    Console(width=120).print(table(exported.reports))
    kept = [folder.parent for folder in exported.folders.values()]
    print(f"export: {kept[0] if kept else 'nothing was kept'}")
    if any("refused" in part for parts in exported.reports.values() for part in parts.values()):
        sys.exit(1)


if __name__ == "__main__":
    run("export", ExportConfig, main)
