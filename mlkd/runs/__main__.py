"""``python -m mlkd.runs``: list runs; ``prune``: remove those that nothing needs."""

from __future__ import annotations

import sys
from pathlib import Path

from mlkd.config.commands import RunsConfig
from mlkd.config.compose import run
from mlkd.output.errors import UserError
from mlkd.runs.inventory import RunState, folder_bytes, inventory, needed_by, prunable, prune


def main(config: RunsConfig) -> None:
    """Show runs, or show and remove those that nothing needs."""
    output = Path(config.output_dir)
    entries = inventory(output)
    if not entries:
        raise UserError(f"output_dir={config.output_dir}: no runs in {output / 'runs'}")
    if config.action == "list":
        _show({entry: "" for entry in entries}, entries)
        print(f"cache: {_mib(folder_bytes(output / 'cache'))} MiB, made again where it is needed")
        print(f"runs: {output / 'runs'}")
        return
    found = dict(prunable(output, entries))
    removed = []
    if found:
        _show(found, entries)
        if not config.ask or _agreed(len(found)):
            removed = list(prune(output, list(found)))
        elif not sys.stdin.isatty():
            print("ask=false removes them")
    size = _mib(sum(entry.size for entry in removed))
    print(f"removed {len(removed)} of {len(entries)} runs ({size} MiB) from {output / 'runs'}")


def _agreed(number: int) -> bool:
    """Ask, if there is somebody to ask."""
    if not sys.stdin.isatty():
        return False
    return input(f"remove these {number} runs? [y/N] ").strip().lower() in {"y", "yes"}


def _show(chosen: dict[RunState, str], entries: list[RunState]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    users = needed_by(entries)
    table = Table()
    names = ("run", "status", "MiB", "dev STS", "test STS", "needed by", "why")
    for name in names[: None if any(chosen.values()) else -1]:
        right = name == "MiB" or name.endswith("STS")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for entry, reason in chosen.items():
        means = [entry.means.get(split, {}).get("sts") for split in ("dev", "test")]
        cells = [entry.name, entry.status, _mib(entry.size)]
        cells += ["-" if mean is None else f"{mean:.2f}" for mean in means]
        cells += ["\n".join(users[entry.name]) or "-", *([reason] if reason else [])]
        table.add_row(*map(Text, cells))
    Console(width=140).print(table)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"


if __name__ == "__main__":
    words = ("list", "prune")  # may stand without their key
    sys.argv[1:] = [f"action={word}" if word in words else word for word in sys.argv[1:]]
    run("runs", RunsConfig, main)
