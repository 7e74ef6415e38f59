"""Keys and tokens stay where they are; nothing leaves the machine unless it is asked for."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
from conftest import Command, tiny_settings

from mlkd.config.evaluation import EvalConfig
from mlkd.config.schema import TrainConfig
from mlkd.output.errors import UserError
from mlkd.output.secrets import redact
from mlkd.training import wandb_logger

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "COMPANY_SECRET": "correct-horse-battery",
}


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def assert_clean(folder: Path, *texts: str) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files or any(texts)
    for path in files:
        content = path.read_bytes()
        assert not [s for s in SECRETS.values() if s.encode() in content], path
    for text in texts:
        assert not [s for s in SECRETS.values() if s in text], text


def test_no_secret_of_environment_or_config_is_written(
    tiny: Callable[..., TrainConfig], tmp_path: Path, keys: None, capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    from mlkd.recipes.run import run_chain

    caplog.set_level("DEBUG")
    tags = f"logger.tags=[{SECRETS['COMPANY_SECRET']},shop]"
    run_chain(
        tiny(
            "logger=wandb",
            "logger.mode=offline",
            tags,
            f"logger.group={SECRETS['HF_TOKEN']}",
            stage="assistant",
        )
    )
    (record,) = (tmp_path / "out/runs").glob("*/run.json")
    assert json.loads(record.read_text())["config"]["logger"]["tags"] == ["***", "shop"]
    assert list((tmp_path / "out/runs").glob("*/wandb/offline-run-*/*.wandb"))
    printed = capfd.readouterr()
    assert_clean(tmp_path / "out", caplog.text, printed.out, printed.err)


@pytest.mark.parametrize(
    "override",
    [
        "teacher.name={HF_TOKEN}",
        "+logger.api_key={WANDB_API_KEY}",
        "logger.mode={WANDB_API_KEY}",
        "seed={COMPANY_SECRET}",
        "logger.tags=[{HF_TOKEN}",
        "data=tsv data.root=https://me:{COMPANY_SECRET}@example.org",
    ],
)
def test_no_secret_is_in_an_error_message(
    tmp_path: Path, override: str, keys: None,
    command: Command,
) -> None:  # fmt: skip
    words = override.format(**SECRETS).split(" ")
    done = command("mlkd.train", *words, "debug=tiny", f"output_dir={tmp_path}")
    assert done.returncode == 2, done.stderr
    assert_clean(tmp_path, done.stdout, done.stderr)


def test_no_secret_is_in_a_log_line_or_a_traceback(tmp_path: Path) -> None:
    code = """
import logging, os
from mlkd.output.secrets import guard_output
logging.basicConfig()
guard_output()
logging.warning("key %s", os.environ["COMPANY_SECRET"])
raise ValueError(os.environ["HF_TOKEN"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, env={**os.environ, **SECRETS}, check=False,
    )  # fmt: skip
    assert "WARNING:root:key ***" in done.stderr
    assert "ValueError: ***" in done.stderr
    assert_clean(tmp_path, done.stderr)


def test_no_secret_is_in_the_log_and_the_record_of_a_failed_cell(
    encoder_folder: Path, corpus: Path, tmp_path: Path, keys: None,
    monkeypatch: pytest.MonkeyPatch, command: Command,
) -> None:  # fmt: skip
    def refuse(config: EvalConfig) -> None:
        raise PermissionError(f"{SECRETS['COMPANY_SECRET']} was refused")

    monkeypatch.setattr("mlkd.recipes.inputs.load_sets", refuse)
    overrides = tiny_settings(encoder_folder, corpus, tmp_path / "out")
    tag = f"logger.tags=[{SECRETS['COMPANY_SECRET']}]"
    done = command("mlkd.train", "-m", *overrides, "logger=wandb", tag, "seed=0,1")
    assert done.returncode == 1, done.stderr
    (file,) = (tmp_path / "out/multirun").glob("*/sweep.json")
    record = json.loads(file.read_text())
    assert [cell["error"] for cell in record["cells"]] == ["PermissionError: *** was refused"] * 2
    for cell in record["cells"]:
        text = Path(cell["log"]).read_text()
        assert "Traceback (most recent call last)" in text
        assert text.endswith("PermissionError: *** was refused\n")
    alone = command("mlkd.sweeps.job", str(file.parent), record["cells"][0]["id"])
    assert alone.returncode == 1
    assert "logger.tags=[***]" in record["command"]
    printed = (done.stdout, done.stderr, alone.stdout, alone.stderr)
    assert_clean(file.parent, *printed)


def test_redaction_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "somewhere")
    monkeypatch.setenv("MY_KEY", "short")
    text = "https://host/a:b@c somewhere short /path/key=3 hf_short Bearer"
    assert redact(text) == text
    monkeypatch.setenv("A_KEY", "secret-word")
    monkeypatch.setenv("B_TOKEN", "secret-word-and-more")
    assert redact("secret-word-and-more, secret-word") == "***, ***"
    assert redact("https://me:pass@host Bearer abcdefghij") == "https://***@host Bearer ***"


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt of this process to reach another machine."""
    seen: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        seen.append(address)
        raise ConnectionRefusedError(111, "refused by the test")

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(host)
        raise socket.gaierror(-3, "refused by the test")

    original = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX:
            original(self, address)
        else:
            connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return seen


def test_without_wandb_nothing_leaves_the_machine(
    tiny: Callable[..., TrainConfig], connections: list[Any], keys: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from mlkd.recipes.run import run_chain

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    run_chain(tiny(stage="assistant"))
    assert connections == []


@pytest.mark.slow
@pytest.mark.enable_socket
def test_an_unreachable_wandb_server_does_not_stop_training_and_loses_nothing(
    tiny: Callable[..., TrainConfig], tmp_path: Path, keys: None, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    from mlkd.recipes.run import run_chain

    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the port where nobody answers
    monkeypatch.setattr(wandb_logger, "_PATIENCE", 10.0)
    run_chain(tiny("logger=wandb", "logger.mode=online", stage="assistant"))
    wandb.teardown()  # its service may still have been writing, as at the end of a process
    assert "W&B cannot be reached" in caplog.text
    assert "wandb sync" in caplog.text
    (folder,) = (tmp_path / "out/runs").glob("assistant-*")
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    (written,) = folder.glob("wandb/offline-run-*/*.wandb")
    assert b"dev/loss" in written.read_bytes()
    assert "dev/loss" in (folder / "curves/metrics.csv").read_text()


def test_messages_are_one_line_of_bounded_length() -> None:
    assert str(UserError("a\nb\r\x85\u2028\u202e\ud800\0")) == (
        "a\\nb\\r\\x85\\u2028\\u202e\\ud800\\x00"
    )
    assert len(str(UserError("x" * 10**6))) < 1100
