"""What an installed wheel can do, far from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import Once, sts_settings

REPOSITORY = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def python(executable: str | Path, *words: str, at: Path) -> CompletedProcess[str]:
    """Run a Python that finds mlkd only where it is installed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [executable, *words], cwd=at, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done


@pytest.fixture(scope="session")
def wheel(once: Once) -> Path:
    def build(folder: Path) -> Path:
        options = ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(folder)]
        python(sys.executable, "-m", "pip", "wheel", *options, str(REPOSITORY), at=folder)
        (built,) = folder.glob("*.whl")
        return built

    return once("wheel", build)


@pytest.fixture(scope="session")
def installed(wheel: Path, once: Once) -> Path:
    """Python of an environment with the wheel, whose other packages are those of this one."""

    def install(folder: Path) -> Path:
        venv.create(folder / "env")
        interpreter = folder / "env" / "bin" / "python"
        place = python(
            interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", at=folder
        )
        shared = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
        Path(place.stdout.strip(), "shared.pth").write_text("\n".join(sorted(shared)) + "\n")
        to = ["-m", "pip", "--python", str(interpreter), "install"]
        python(sys.executable, *to, "--no-deps", "--no-index", str(wheel), at=folder)
        return interpreter

    return once("installed", install)


def test_wheel_holds_all_that_git_knows(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "mlkd", "conf"], cwd=REPOSITORY, capture_output=True, text=True
    )
    expected = {
        name.replace("conf/", "mlkd/conf/", 1) if name.startswith("conf/") else name
        for name in listed.stdout.splitlines()
        if not name.endswith((".md", ".png")) and (REPOSITORY / name).exists()
    }
    assert {"mlkd/train.py", "mlkd/conf/train.yaml", "mlkd/data/demo/sts.tsv"} <= expected
    assert "mlkd/deploy/web/page/search.js" in expected
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held >= expected
    assert {name for name in held if not name.startswith("mlkd/")} == set()


def test_commands_run_from_any_folder(
    installed: Path, encoder_folder: Path, corpus: Path, tmp_path: Path
) -> None:
    place = python(installed, "-c", "import mlkd; print(mlkd.__file__)", at=tmp_path).stdout
    assert place.startswith(str(installed.parents[1]))
    shown = python(installed, "-m", "mlkd.train", "--cfg", "job", "student=xlmr_small", at=tmp_path)
    assert "stage: contrastive\n" in shown.stdout
    words = [f"model={encoder_folder}", f"teacher.path={encoder_folder}", "teacher=folder"]
    python(installed, "-m", "mlkd.evaluate", *words, *sts_settings(corpus), at=tmp_path)
    (written,) = (tmp_path / "outputs").glob("evaluation-model-*.json")
    measured = json.loads(written.read_text())
    assert 0 < measured["scores"]["mean"]["test"]["sts"] <= 100


def test_code_of_an_installation_is_its_release(installed: Path, tmp_path: Path) -> None:
    # A repository around the environment would otherwise lend its commit.
    around = installed.parents[2]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "another project"]):
        named = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
        subprocess.run(["git", *named, *words], cwd=around, check=True)
    code = "from mlkd.runs.record import environment; print(environment()['code'])"
    assert python(installed, "-c", code, at=tmp_path).stdout.strip() == "0.1.0"
