"""The curves of a run as a CSV file in which every step stands once, also after interruptions."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from mlkd.storage.files import replacing

log = logging.getLogger(__name__)

_EVERY = 30.0
"""Seconds between writings, so that the file can be watched."""


class Curves(Logger):
    """One row a logged step, one column a value; the file is always whole."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._written = time.monotonic()
        if path.is_file():
            try:
                with path.open(newline="", encoding="utf-8") as file:
                    rows = list(csv.DictReader(file))
                self._rows = [{k: v for k, v in row.items() if k and v} for row in rows]
            except (ValueError, csv.Error):
                aside = path.with_name(f"damaged-{path.name}")
                path.replace(aside)
                log.warning("%s: no CSV; it is now %s", path, aside)

    @property
    def name(self) -> str:
        """Not used."""
        return ""

    @property
    def version(self) -> str:
        """Not used."""
        return ""

    def cut(self, step: int) -> None:
        """Forget a step and all later ones, because they are run again."""
        self._rows = [row for row in self._rows if _is_before(row, step)]

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the row of a step."""
        values = {name: value for name, value in metrics.items() if name != "epoch"}
        if not self._rows or self._rows[-1]["step"] != step:
            self._rows.append({"step": step})
        self._rows[-1] |= values
        if time.monotonic() - self._written > _EVERY:
            self.write()

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in the run record."""

    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.write()

    def write(self) -> None:
        """Replace the file."""
        self._written = time.monotonic()
        names = {name: None for row in self._rows for name in row}
        with replacing(self._path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["step", *sorted(names.keys() - {"step"})])
            writer.writeheader()
            writer.writerows(self._rows)


def _is_before(row: dict[str, Any], step: int) -> bool:
    try:
        return int(row["step"]) < step
    except (KeyError, TypeError, ValueError):  # a damaged line
        return False
