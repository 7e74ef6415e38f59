"""The examples of the contributor guide, put where they say, make mlkd do what they say."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENGLISH, GERMAN, sts_settings, write_corpus
from pages import PAGES, REPOSITORY

BLOCKS = re.findall(r"^```(?:python|yaml)\n# (\S+?)(?:, (\w+): ([^\n]*))?\n(.*?)^```$",
                    PAGES["mlkd/README.md"], re.M | re.S)  # fmt: skip
"""Path, ``before``, ``after`` or ``replaces`` and the line where there is one, and the code."""


def add(root: Path) -> None:
    """Do what the guide says in a copy of the repository."""
    for path, how, line, code in BLOCKS:
        file = root / path
        if not how:
            assert not file.exists(), path
            file.write_text(code, encoding="utf-8")
            continue
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        (place,) = (i for i, text in enumerate(lines) if text.strip().startswith(line))
        lines[place + (how == "after") : place + (how != "before")] = [code]
        file.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    for name in ("mlkd", "conf"):
        shutil.copytree(
            REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    add(root)
    return root


def test_the_examples_fit_into_the_code(changed: Path) -> None:
    assert len(BLOCKS) > 15
    for path, *_ in BLOCKS:
        if path.endswith(".py"):
            ast.parse((changed / path).read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_examples_have_the_style_and_the_types_of_the_code(changed: Path) -> None:
    for tool in ("ruff", "mypy"):
        pytest.importorskip(tool)
    if not (REPOSITORY / ".mypy_cache").is_dir():
        pytest.skip("mypy takes minutes where it has not been run on the code itself")
    shutil.copytree(REPOSITORY / ".mypy_cache", changed / ".mypy_cache")
    shutil.copy(REPOSITORY / "pyproject.toml", changed)
    for words in (["ruff", "format", "-q"], ["ruff", "check"], ["mypy"]):
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=changed, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_examples_train_and_are_exported(
    changed: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    rows = [
        f"{e} {i} ||| {g} {i}\n" for i in range(50) for e, g in zip(ENGLISH, GERMAN, strict=True)
    ]
    (corpus / "pairs.en-de.txt").write_text("".join([*rows, "one side\n"]), encoding="utf-8")

    def command(module: str, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", f"mlkd.{module}", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(changed)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    printed = command(
        "train",
        "recipe=turned",
        "data=tsv",
        f"data.root={corpus}",
        "data.corpora.pairs.format=bars",
        "data.corpora.pairs.columns=null",
        "data.corpora.pairs.path=pairs.en-de.txt",
        "data.dev_fraction=0.2",
        "data.max_tokens=16",
        *sts_settings(corpus),
        "teacher=folder",
        f"teacher.path={encoder_folder}",
        "assistant.vocabulary.size=120",
        "student.bottleneck=4",
        "student.layers=2",
        "trainer.threads=1",
        "limits.max_steps=6",
        "limits.batch_size=16",
    )
    assert "not two sides" in printed
    (run,) = (tmp_path / "outputs/runs").glob("turned-*")
    assert (run / "student/model.safetensors").is_file()
    assert (run / "map/map.safetensors").is_file()
    assert "dev/direction" in (run / "curves/metrics.csv").read_text().splitlines()[0]
    command("export", f"run={run}", "format=[onnx]", "output=out")
    assert (tmp_path / "out/onnx/onnx/model.onnx").is_file()
    assert (tmp_path / "out/onnx/README.md").is_file()
