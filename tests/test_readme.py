from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from mlkd.config import CONF_DIR, validate
from mlkd.schema import TrainConfig

REPOSITORY = Path(__file__).parent.parent
FILES = [REPOSITORY / "README.md", *sorted(CONF_DIR.rglob("*.yaml"))]
COMMANDS = sorted(
    {
        re.split(r"\s{2,}", match.group(1))[0].strip()
        for path in FILES
        for match in re.finditer(r"^(?:# )?python -m mlkd\.train (.+)$", path.read_text(), re.M)
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_shown_composes(command: str) -> None:
    filled = command.replace("<folder of the corpora>", "corpora")
    overrides = shlex.split(re.sub(r"--\w+ \w+", "", filled))
    if "=models/my-" in command:
        pytest.skip("shows a folder that only the user has")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = compose("train", overrides)
    validate(composed, TrainConfig)
