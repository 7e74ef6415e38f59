"""Importing mlkd, loading a student and encoding leave the process as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from conftest import ENGLISH
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pages import REPOSITORY

from mlkd.encoders.folder import load_folder

SNAPSHOT = """
import importlib, logging, os, pkgutil, random, signal, sys, warnings
import hydra, lightning, datasets, numpy, omegaconf, sentence_transformers, submitit, torch
import torchmetrics, transformers, wandb
import onnx, onnxruntime, optuna, wandb_workspaces.reports.v2
import accelerate, jinja2, matplotlib.figure, pandas, plotly.offline, plotly.tools, scipy.stats
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.version import getbase
from huggingface_hub.utils import are_progress_bars_disabled
from lightning.pytorch.utilities import rank_zero
from transformers.utils import logging as quiet

Plugins.instance()  # which stores what it finds

GlobalHydra.instance()

def snapshot():
    known = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    known = [logger for logger in known if isinstance(logger, logging.Logger)]
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    return {
        "environment": dict(os.environ),
        "loggers": {l.name: (l.level, l.handlers[:], l.propagate, l.disabled) for l in known},
        "signals": {n: signal.getsignal(n) for n in signal.valid_signals()},
        "hook": sys.excepthook,
        "warnings": warnings.filters[:],
        "bars": (quiet.is_progress_bar_enabled(), quiet._tqdm_hook, are_progress_bars_disabled()),
        "kernels": (cuda.cudnn_sdp_enabled(), cuda.flash_sdp_enabled(), cuda.math_sdp_enabled(),
                    cuda.mem_efficient_sdp_enabled(), cudnn.enabled, cudnn.benchmark,
                    cudnn.deterministic, cudnn.allow_tf32),
        "torch": (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype(),
                  torch.get_float32_matmul_precision()),
        "random": (random.getstate(), str(numpy.random.get_state()), torch.initial_seed(),
                   torch.get_rng_state().tolist()),
        "hydra": (sorted(vars(ConfigStore)), str(ConfigStore.instance().repo),
                  sorted(map(str, Singleton._instances)),
                  str(GlobalHydra.instance().hydra)),
    }

def compare(before, after, where):
    new = set(after["loggers"]) - set(before["loggers"])
    after["loggers"] = {k: v for k, v in after["loggers"].items() if k not in new}
    for name in before:
        assert before[name] == after[name], f"{where} changes {name}"

before = snapshot()
"""


def python(code: str, *words: object) -> None:
    """Run a program in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_import_is_quick_and_imports_nothing_else() -> None:
    code = (
        "import sys, time; before = set(sys.modules); start = time.process_time(); import mlkd;"
        "assert time.process_time() - start < 0.3;"
        "new = {n.split('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names);"
        "assert new == {'mlkd'}, new; assert 'mlkd.api' not in sys.modules"
    )
    python(code)


def test_calls_draw_no_random_numbers_of_the_caller() -> None:
    """Packages that draw some when they are imported, as rich does, are imported in the calls."""
    python(
        """
import random, sys
before = random.getstate()
import mlkd
try:
    mlkd.train(pairs={"de": "nothing.tsv"})
except mlkd.UserError:
    assert "rich" in sys.modules
    assert random.getstate() == before
else:
    raise AssertionError
"""
    )


@pytest.mark.slow
def test_importing_every_module_changes_nothing() -> None:
    python(
        SNAPSHOT
        + """
import mlkd
for module in pkgutil.walk_packages(mlkd.__path__, "mlkd."):
    if not module.name.endswith("__main__") and module.name != "mlkd.deploy.encode":
        importlib.import_module(module.name)
        compare(before, snapshot(), module.name)
assert callable(mlkd.load)
"""
    )


@pytest.mark.slow
def test_loading_encoding_and_configuring_change_nothing(encoder_folder: Path) -> None:
    python(
        SNAPSHOT
        + """
import mlkd
logging.getLogger("sentence_transformers").setLevel(logging.DEBUG)  # the caller's choice
before = snapshot()
mlkd.load(sys.argv[1]).encode(["a", "b"], show_progress_bar=False)
compare(before, snapshot(), "encoding")
try:
    mlkd.load(os.path.dirname(sys.argv[1]))
except mlkd.UserError:
    compare(before, snapshot(), "a failure to load")
with hydra.initialize_config_dir("/tmp", version_base="1.2", job_name="caller"):
    before = snapshot()
    own = getbase(), JobRuntime.instance().get("name"), GlobalHydra.instance().hydra
    assert mlkd.configure("seed=3").seed == 3
    compare(before, snapshot(), "configuring")
    assert own == (getbase(), JobRuntime.instance().get("name"), GlobalHydra.instance().hydra)
""",
        encoder_folder,
    )


@pytest.mark.slow
def test_a_student_needs_few_packages(encoder_folder: Path, tmp_path: Path) -> None:
    """Those of ``pip install --no-deps mlkd`` and ``pip install sentence-transformers``.

    Two processes may sum in another order: the vectors are near, not equal in every bit.
    """
    found = link_packages("sentence-transformers", tmp_path / "packages")
    assert {"torch", "transformers", "tokenizers", "safetensors"} <= found
    assert not found & {"lightning", "hydra-core", "omegaconf", "wandb", "datasets", "torchmetrics"}
    expected = load_folder(encoder_folder).encode(ENGLISH)
    code = (
        "import json, sys, numpy, mlkd;"
        "vectors = mlkd.load(sys.argv[1]).encode(json.loads(sys.argv[2]), show_progress_bar=False);"
        "assert numpy.allclose(vectors, numpy.load(sys.argv[3]), rtol=0, atol=1e-6)"
    )
    np.save(tmp_path / "vectors.npy", expected)
    path = os.pathsep.join([str(tmp_path / "packages"), str(REPOSITORY)])
    command = [sys.executable, "-S", "-c", code]  # -S: without the packages of this environment
    words = [str(encoder_folder), json.dumps(ENGLISH), str(tmp_path / "vectors.npy")]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [*command, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr


def link_packages(name: str, folder: Path) -> set[str]:
    """Link a distribution and all that it requires into a folder; gives their names."""
    folder.mkdir()
    found: set[str] = set()
    waiting = [name]
    while waiting:
        distribution = metadata.distribution(waiting.pop())
        found.add(canonicalize_name(distribution.name))
        for file in distribution.files or []:
            top = file.parts[0]
            if top != ".." and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))))
        for requirement in map(Requirement, distribution.requires or []):
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and canonicalize_name(requirement.name) not in found:
                waiting.append(requirement.name)
    return found
