"""How far a sweep has come, how fast it goes, and how long it will still take."""

from __future__ import annotations

import time

from mlkd.sweeps.plan import duration

_SELDOM = 30.0
"""Seconds between two lines while no job ends."""


class Pace:
    """Lines on the jobs of a call, from the plan to the table."""

    def __init__(self, total: int) -> None:
        self._total, self._started = total, time.monotonic()
        self._said: tuple[int, int] | None = None
        self._when = -_SELDOM

    def news(self, done: int, running: int) -> str | None:
        """Where the sweep stands; None if that is known or not worth a line yet.

        Args:
            done: Jobs that have ended, also those that failed or are not run.
            running: Jobs that are being worked on.
        """
        now = time.monotonic()
        known = self._said is not None and self._said[0] == done
        if self._said == (done, running) or (known and now - self._when < _SELDOM):
            return None
        self._said, self._when = (done, running), now
        parts = [f"{done} of {self._total} jobs done", f"{running} running"]
        spent, left = now - self._started, self._total - done
        if done and left and spent > 0:
            parts += [f"{3600 * done / spent:.3g} an hour"]
            parts += [f"about {duration(spent / done * left)} left"]
        return ", ".join(parts)
