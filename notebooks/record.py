"""``python notebooks/record.py <table> ... data.root=<corpora>``: the records of tables of results.

Runs the table's commands, which reuse what is finished and go on with what is not, and writes the
numbers of their run records to ``results/<table>.csv``. Settings with ``=`` are added to each
command: ``output_dir=...``, or ``hydra/launcher=slurm``.
"""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recorded import TABLES

RESULTS = Path(__file__).parent / "results"

_LOCAL = {"error", "log", "code", "folder", "command"}
"""Columns of a report that are left out: of the machine, its checkout and what went wrong there."""


def record(name: str, settings: list[str]) -> None:
    """Run what a table is of and write its files."""
    table = TABLES[name]
    alone = [word for word in settings if not word.startswith("hydra/")]  # those of sweeps
    if table.assistant:
        ready = _run(["mlkd.train", *table.assistant.split(), *alone])
        settings, alone = (
            [*words, f"assistant.encoder.path={ready}"] for words in (settings, alone)
        )
    with tempfile.TemporaryDirectory() as scratch:
        if table.module == "mlkd.baselines":
            for number, line in enumerate(table.commands):
                output = f"output={scratch}/table-{number}.json"
                _run([table.module, *line.split(), output, *alone])
        else:
            trained = [_run([table.module, *line.split(), *settings]) for line in table.commands]
            _run(["mlkd.report", *trained, f"output={scratch}"])
        for kind in ("table", *table.besides):
            path = RESULTS / f"{name}{'' if kind == 'table' else f'_{kind}'}.csv"
            join(sorted(Path(scratch).glob(f"{kind}*.csv")), path)
            print(f"{name}: {path}")


def _run(words: list[str]) -> str:
    """Run a module; gives the path that its last line names."""
    print("python -m", *words, flush=True)
    last = ""
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with _left_to(process):
            for line in process.stdout:
                print(line, end="", flush=True)
                last = line if line.strip() else last
            status = process.wait()
    if status:
        sys.exit(status if status > 0 else 128 - status)
    return last.rpartition(": ")[2].strip()


@contextmanager
def _left_to(process: subprocess.Popen[str]) -> Iterator[None]:
    """Let a process decide what a signal does: it saves, and is waited for."""
    before = {
        # Ctrl-C reaches all processes of a terminal, SIGTERM the first one alone.
        signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: process.terminate()),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def join(sources: list[Path], target: Path) -> None:
    """Write tables of the same columns below each other, without what is local to a machine."""
    rows = []
    for source in sources:
        with source.open(newline="", encoding="utf-8") as file:
            rows += list(csv.DictReader(file))
    if not rows:
        sys.exit(f"error: {target}: the report has no rows, so there is nothing to record")
    shown = [column for column in rows[0] if column not in _LOCAL]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, shown, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(words: list[str]) -> int:
    """Record the tables that are named; gives the exit status."""
    settings = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    unknown = [name for name in names if name not in TABLES]
    if unknown or not names:
        message = f"{unknown[0]}: no such table" if unknown else "no table is named"
        print(f"error: {message}; allowed: {', '.join(TABLES)}", file=sys.stderr)
        return 2
    try:
        for name in names:
            record(name, settings)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
