"""Corpora as the readers give them, for tests of formats."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mlkd.config.inputs import CorpusConfig
from mlkd.data.readers import read
from mlkd.data.rows import Reject, Row
from mlkd.data.sources import source_files
from mlkd.output.errors import UserError


def found(root: Path, target: str = "de", **corpus: Any) -> list[Row | Reject]:
    corpus = {"targets": ["de"], **corpus}
    config = CorpusConfig.model_validate(corpus)
    files = source_files("c", config, target, str(root))
    return list(read("c", config, target, files))


def pairs(root: Path, target: str = "de", **corpus: Any) -> list[tuple[str, str]]:
    items = found(root, target, **corpus)
    assert not [item for item in items if isinstance(item, Reject)]
    return [(item.source, item.target) for item in items if isinstance(item, Row)]


def reasons(items: list[Row | Reject]) -> Counter[str]:
    return Counter(item.reason for item in items if isinstance(item, Reject))


def refused(root: Path, target: str = "de", **corpus: Any) -> str:
    with pytest.raises(UserError) as caught:
        found(root, target, **corpus)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{root}/", "")
