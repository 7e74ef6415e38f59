"""``python -m mlkd.sweeps [<folder> ...]``: where the cells of sweeps stand, from any terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mlkd.output.errors import UserError
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.status import Standing, counts, driver_of, standings, sweeps_of


def main(words: list[str]) -> None:
    """Print a line for each sweep, and each job of one that is the only one."""
    parser = argparse.ArgumentParser(
        prog="python -m mlkd.sweeps",
        description="Say which cells of a sweep are finished, running, queued, failed or missing.",
    )
    parser.add_argument(
        "folder",
        nargs="*",
        default=["outputs"],
        help="output folders, or multirun folders of sweeps (default: outputs)",
    )
    folders = parser.parse_args(words).folder
    records = [record for folder in folders for record in sweeps_of(Path(folder).expanduser())]
    for record in records:
        found = standings(record)
        print(f"{record.folder}: {counts(found)}")
        if len(records) == 1:
            _show(found)
        _say_how_to_go_on(record, found)


def _show(found: list[Standing]) -> None:
    width = max(len(standing.overrides) for standing in found)
    for standing in found:
        line = f"  {standing.id:<15}  {standing.word:<8}  {standing.overrides:<{width}}"
        print(f"{line}  {standing.detail}".rstrip())


def _say_how_to_go_on(record: SweepRecord, found: list[Standing]) -> None:
    """Who works on the sweep, or the command that goes on with it."""
    content = record.read()
    driver = driver_of(content)
    if driver is not None:
        print(f"  started by {driver}, which watches it")
    elif any(standing.word in {"failed", "missing"} for standing in found):
        print(f"  nothing runs what failed or is missing; this does: {content['command']}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
