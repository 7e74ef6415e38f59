"""Random numbers of the program that calls mlkd."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Found = TypeVar("Found")


def keeping_random(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """Leave Python's random numbers as they are: some packages draw when they are imported."""

    @wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        before = random.getstate()
        try:
            return function(*args, **kwargs)
        finally:
            random.setstate(before)

    return call
