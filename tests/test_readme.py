"""What the pages show and promise is so: commands, settings, links, tests."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hydra import compose
from pages import PAGES, REPOSITORY, anchors, blocks, commands
from pydantic import BaseModel

from mlkd.config.bench import BaselinesConfig, BenchmarkConfig
from mlkd.config.commands import (
    EvaluateConfig,
    ExportConfig,
    MineConfig,
    PairsConfig,
    ReportConfig,
    RunsConfig,
)
from mlkd.config.compose import CONF_DIR, composing, validate
from mlkd.config.schema import TrainConfig
from mlkd.config.trees import compose_tree
from mlkd.mine import as_overrides as of_mining
from mlkd.output.errors import UserError
from mlkd.report import as_overrides
from mlkd.sweeps.grid import Request, combinations, make_cell, read_request

OTHERS: dict[str, type[BaseModel]] = {
    "baselines": BaselinesConfig,
    "benchmark": BenchmarkConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "mine": MineConfig,
    "pairs": PairsConfig,
    "report": ReportConfig,
    "runs": RunsConfig,
}
"""Schemas of the commands beside ``mlkd.train``."""


def in_options(module: str) -> list[list[str]]:
    """Commands at the start of the files of ``conf/``; what follows two spaces is a comment."""
    found = set()
    for path in CONF_DIR.rglob("*.yaml"):
        lines = re.findall(rf"^# python -m mlkd\.{module}\b(.*)$", path.read_text("utf-8"), re.M)
        found |= {tuple(shlex.split(re.split(r"\s{2,}", line)[0])) for line in lines}
    return sorted(map(list, found))


def shown(module: str) -> list[list[str]]:
    """All commands of a module: in the pages, in their recordings, in the options."""
    recorded = [line for block in blocks("console") for line in block.split("\n")]
    words = [shlex.split(line[2:], comments=True) for line in recorded if line.startswith("$ ")]
    own = [line[3:] for line in words if line[:3] == ["python", "-m", f"mlkd.{module}"]]
    found = {tuple(w) for w in [*commands(f"mlkd.{module}"), *own, *in_options(module)]}
    return sorted(map(list, found))


@pytest.mark.parametrize("words", shown("train"), ids=shlex.join)
def test_every_command_that_is_shown_composes(words: list[str]) -> None:
    if any("=models/my-" in word for word in words):
        pytest.skip("shows a folder that only the user has")
    overrides = [word.replace("$CORPORA", "corpora") for word in words]
    if "--cfg" in overrides:
        assert overrides[-2:] == ["--cfg", "job"]
        del overrides[-2:]
    with composing():
        if overrides[:1] == ["-m"]:
            assert is_possible(read_request(overrides[1:]))
            return
        composed = compose_tree("train", overrides)
    validate(composed, TrainConfig)


def is_possible(request: Request) -> bool:
    """Whether any cell is; the others cost seconds."""
    for values in combinations(request.sweep.grid):
        with suppress(UserError):
            return bool(make_cell(request.fixed, values))
    return False


@pytest.mark.parametrize(
    ("module", "words"), [(name, words) for name in OTHERS for words in shown(name)], ids=str
)
def test_every_other_command_that_is_shown_composes(module: str, words: list[str]) -> None:
    overrides = [word.replace("$CORPORA", "corpora") for word in words]
    if module == "report":
        overrides = as_overrides(overrides)
    elif module == "mine":
        overrides = of_mining(overrides)
    elif module == "runs":
        overrides = [word if "=" in word else f"action={word}" for word in overrides]
    with composing():
        validate(compose_tree(module, overrides), OTHERS[module])


def test_every_command_is_in_its_table_and_shown() -> None:
    package = REPOSITORY / "mlkd"
    started = 'if __name__ == "__main__"'
    modules = {p.stem for p in package.glob("*.py") if started in p.read_text("utf-8")}
    modules |= {p.parent.name for p in package.glob("*/__main__.py")}
    listed = re.findall(r"^\| `python -m mlkd\.(\w+)` \|", PAGES["conf/README.md"], re.M)
    assert set(listed) == modules
    assert len(listed) == len(modules)
    for name in modules:
        assert commands(f"mlkd.{name}"), name


@pytest.mark.parametrize(
    "block", blocks("yaml", but="mlkd/README.md"), ids=lambda block: block.split("\n")[0]
)
def test_options_that_are_shown_compose(block: str, tmp_path: Path) -> None:
    """An example of an option, as its first line names it, beside those of mlkd.

    Those of the guide need code as well, and are ``test_guide``'s.
    """
    named = re.match(r"# conf/(\w+)/(\w+)\.yaml\n", block)
    assert named
    group, name = named.groups()
    (tmp_path / group).mkdir()
    (tmp_path / group / f"{name}.yaml").write_text(block, encoding="utf-8")
    with composing():
        composed = compose(
            "train", [f"hydra.searchpath=[file://{tmp_path}]", f"{group}={name}", "data.root=my"]
        )
    validate(composed, TrainConfig)


def test_every_group_is_in_the_page_of_settings() -> None:
    table = re.search(r"\| group \|.*\n(?:\|.*\n)+", PAGES["conf/README.md"])
    assert table
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", table.group(), re.M)
    assert {group for group, _ in rows} == {p.name for p in CONF_DIR.iterdir() if p.is_dir()}
    for group, options in rows:
        folder = CONF_DIR / ("hydra/launcher" if group == "hydra" else group)
        shown = re.findall(r"`(\w+)`", options)
        assert shown, group
        for option in shown:
            assert (folder / f"{option}.yaml").is_file(), f"{group}={option}"


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
    "words",
    [
        words
        for words in commands("mlkd.train")
        if "-m" not in words and not any("data.root=" in word for word in words)
    ],
    ids=shlex.join,
)
def test_the_commands_of_the_pages_run(words: list[str], outputs: Path) -> None:
    tiny = [] if "--cfg" in words else ["debug=tiny"]
    printed = execute("train", *words, *tiny, f"output_dir={outputs}")
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
    table = re.search(r"\| promise \| test \|\n(?:\|.*\n)+", PAGES["tests/README.md"])
    assert table
    rows = re.findall(r"^\| .* \| (.*) \|$", table.group(), re.M)[1:]
    assert len(rows) > 10
    for row in rows:
        file = ""
        for name in re.findall(r"`((?:\w+/)?test_[\w.:]+)`", row):
            path, _, function = name.rpartition("::") if "::" in name else ("", "", name)
            if name.endswith(".py"):
                path, function = name, ""
            file = path or file
            source = (REPOSITORY / "tests" / file).read_text("utf-8")
            assert not function or f"def {function}(" in source, name
        assert file


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"^```.*?^```$", "", PAGES[name], flags=re.M | re.S)
    folder = (REPOSITORY / name).parent
    links = re.findall(r"\]\(([^)\s]*)\)", text)
    for target, heading in (link.split("#") if "#" in link else (link, "") for link in links):
        if target.startswith("https:"):
            continue
        path = (folder / target).resolve() if target else REPOSITORY / name
        assert path.exists(), f"{target}: {path}"
        if heading:
            assert heading in anchors(path.relative_to(REPOSITORY).as_posix()), heading


def test_every_page_is_in_the_readme() -> None:
    """Somebody who starts there finds all of them."""
    linked = set(re.findall(r"\]\(([^)\s#]*)", PAGES["README.md"]))
    assert set(PAGES) - {"README.md"} <= linked


def test_paths_that_a_page_names_exist() -> None:
    named = []
    for page in PAGES.values():
        text = re.sub(r"^```.*?^```$", "", page, flags=re.M | re.S)
        named += re.findall(r"`((?:mlkd|conf|tests|notebooks)/[\w/.-]*)`", text)
    assert len(named) > 50
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].splitlines()) <= 250


def test_the_test_command_of_the_readme_has_its_marker(tmp_path: Path) -> None:
    """``.ci/run`` runs the block behind the marker, whatever stands before it."""
    script = (REPOSITORY / ".ci" / "run").read_text("utf-8")
    command = re.search(r"^awk .*?> \"\$environment/test\.sh\"$", script, re.M | re.S)
    assert command
    found = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{command.group()}; cat $environment/test.sh"],
        env={**os.environ, "environment": str(tmp_path)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert found.splitlines()[-1] == "python -m pytest"
    assert "'.[test]'" in found
    assert "`" not in found
