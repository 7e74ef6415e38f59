"""``python -m mlkd.export run=<run|folder>``: folders that run in a product, each checked."""

from __future__ import annotations

from mlkd.config.commands import ExportConfig
from mlkd.config.compose import run
from mlkd.deploy.source import check_packages, open_source, target_folder


def main(config: ExportConfig) -> None:
    """Check the input, then write and check every format."""
    source = open_source(config.run)
    target = target_folder(config, source)
    check_packages(config.format)

    from mlkd.deploy.package import export  # torch and friends, only once the input is valid

    export(config, source, target)
    print(f"export: {target}")


if __name__ == "__main__":
    run("export", ExportConfig, main)
