from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from mlkd.config.compose import CONF_DIR, validate
from mlkd.config.schema import TrainConfig
from mlkd.output.errors import UserError
from mlkd.sweeps.grid import Request, combinations, make_cell, read_request

REPOSITORY = Path(__file__).parent.parent
FILES = [
    REPOSITORY / "README.md",
    REPOSITORY / "notebooks" / "README.md",
    *sorted(CONF_DIR.rglob("*.yaml")),
]
COMMANDS = sorted(
    {
        re.split(r"\s{2,}", match.group(1))[0].strip()
        for path in FILES
        for match in re.finditer(r"^(?:# )?python -m mlkd\.train (.+)$", path.read_text(), re.M)
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_shown_composes(command: str) -> None:
    filled = command.replace("$CORPORA", "corpora")
    overrides = shlex.split(re.sub(r"--\w+ \w+", "", filled))
    if "=models/my-" in command:
        pytest.skip("shows a folder that only the user has")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        if overrides[:1] == ["-m"]:
            assert is_possible(read_request(overrides[1:]))
            return
        composed = compose("train", overrides)
    validate(composed, TrainConfig)


def is_possible(request: Request) -> bool:
    """Whether any cell is; the others cost seconds."""
    for values in combinations(request.sweep.grid):
        with suppress(UserError):
            return bool(make_cell(request.fixed, values))
    return False


def shown(module: str) -> list[str]:
    """Commands of the README, each a line, without what a comment says."""
    text = (REPOSITORY / "README.md").read_text()
    found = re.findall(rf"^python -m mlkd\.{module} ?(.*)$", text, re.M)
    return sorted({re.split(r"\s+#", line)[0].strip() for line in found})


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


def execute(module: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"mlkd.{module}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "command", [c for c in shown("train") if "data.root=" not in c and "-m" not in c.split()]
)
def test_the_commands_of_the_readme_run(command: str, outputs: Path) -> None:
    tiny = [] if "--cfg" in command else ["debug=tiny"]
    printed = execute("train", *shlex.split(command), *tiny, f"output_dir={outputs}")
    if tiny:
        last = printed.strip().splitlines()[-1]
        assert (Path(last.removeprefix("student: ")) / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(600)
def test_the_evaluation_of_the_readme_runs(outputs: Path) -> None:
    runs = sorted((outputs / "runs").glob("contrastive-*"))
    assert runs, "needs the runs of the tests above"
    written = outputs / "evaluation.json"
    printed = execute("evaluate", f"model={runs[0]}", f"output={written}")
    assert printed.strip().endswith(f"scores: {written}")
    assert written.is_file()


def test_every_promise_names_tests_that_exist() -> None:
    text = (REPOSITORY / "README.md").read_text()
    table = re.search(r"\| promise \| test \|\n(?:\|.*\n)+", text)
    assert table
    tests = {path.name: path.read_text() for path in REPOSITORY.glob("tests/test_*.py")}
    rows = re.findall(r"^\| .* \| (.*) \|$", table.group(), re.M)[1:]
    assert len(rows) > 10
    for row in rows:
        file = ""
        for name in re.findall(r"`(test_[\w.:]+)`", row):
            file = name.split("::")[0] if ".py" in name else file
            function = name.split("::")[-1]
            assert function == file or f"def {function}(" in tests[file], name
        assert file in tests
