"""``python -m mlkd.sweeps [<folder> ...]``: where the cells of sweeps stand, from any terminal."""

from __future__ import annotations

import argparse
import sys

from mlkd.config.paths import OUTPUTS, user_path
from mlkd.output.errors import UserError
from mlkd.sweeps.record import SweepRecord
from mlkd.sweeps.status import Standing, counts, driver_of, standings, sweeps_of


def main(words: list[str]) -> int:
    """Print a line for each sweep, and each job of one that is the only one; gives the status.

    A sweep whose record is damaged has its line as well, and the status is 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mlkd.sweeps",
        description="Say which cells of a sweep are finished, running, queued, failed or missing.",
    )
    parser.add_argument(
        "folder",
        nargs="*",
        default=[OUTPUTS],
        help=f"output folders, or multirun folders of sweeps (default: {OUTPUTS})",
    )
    folders = parser.parse_args(words).folder
    records = [record for folder in folders for record in sweeps_of(user_path(folder))]
    status = 0
    for record in records:
        try:
            found = standings(record)
            print(f"{record.folder}: {counts(found)}")
            if len(records) == 1:
                _show(found)
            _say_how_to_go_on(record, found)
        except UserError as error:
            status = _fail(str(error))
    return status


def _fail(message: str) -> int:
    print(f"error: {UserError(message)}", file=sys.stderr)  # one line, without secrets
    return 2


def _show(found: list[Standing]) -> None:
    width = max((len(standing.overrides) for standing in found), default=0)
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
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(_fail(str(error)))
    except OSError as error:
        sys.exit(_fail(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
    except KeyboardInterrupt:
        print("interrupted (SIGINT)", file=sys.stderr)
        sys.exit(130)
