"""Progress bars with rate and remaining time, readable in a terminal and in a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress(description: str, *, total: int | None, unit: str, initial: int = 0) -> tqdm[Any]:
    """A bar on stderr; outside a terminal it writes one line every ten seconds."""
    terminal = sys.stderr.isatty()
    return tqdm(
        desc=description,
        total=total,
        unit=unit,
        unit_scale=False,
        initial=initial,
        smoothing=0.1,
        mininterval=0.2 if terminal else 10.0,
        maxinterval=1.0 if terminal else 30.0,
        dynamic_ncols=terminal,
        ascii=None if terminal else True,
        file=sys.stderr,
    )
