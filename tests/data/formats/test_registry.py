"""The formats: each has a module, a line and an example on the page about data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from mlkd.config import inputs
from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.data import formats
from mlkd.data.formats import module_of

NAMES = get_args(CorpusConfig.model_fields["format"].annotation)
PAGE = Path(formats.__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")


def test_names_keys_and_page_agree() -> None:
    assert set(NAMES) == set(inputs._KEYS)
    listed = re.findall(r"^\| `(\w+)` \| [^|]* \|(.*)\|$", PAGE, re.MULTILINE)[1:]
    assert sorted(name for name, _ in listed) == sorted(NAMES)
    for name, keys in listed:
        known = "path|target_path|columns|domain_column|header|delimiter|split|subset|revision"
        told = set(re.findall(f"`({known})`", keys))
        assert told == inputs._KEYS[name] - {"codes"}, name


def test_the_page_has_a_corpus_in_each_format() -> None:
    (block,) = re.findall(r"```yaml\n(# conf/data/mine.yaml.*?)```", PAGE, re.DOTALL)
    config = yaml.safe_load(block)
    corpora = DataConfig.model_validate({"corpora": config["corpora"]}).corpora
    assert {corpus.format for corpus in corpora.values()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_format_is_a_module(name: str) -> None:
    module = module_of(name)
    assert module.__doc__
    assert callable(module.read)
    ways = [hasattr(module, way) for way in ("find", "SUFFIXES", "TWO_FILES")]
    assert sum(ways) <= 1
    assert hasattr(module, "SUFFIXES") == hasattr(module, "NAMED")
