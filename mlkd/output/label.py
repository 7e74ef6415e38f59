"""Settings in a line, as one writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def text(value: Any) -> str:
    """A value."""
    return value if isinstance(value, str) else json.dumps(value)


def label(settings: Mapping[str, Any]) -> str:
    """Values with their keys."""
    return " ".join(f"{key}={text(value)}" for key, value in settings.items())
