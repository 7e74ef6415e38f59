"""Damaged and foreign files are noticed when they are opened; caches are made again."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import weights
from safetensors.torch import load_file, save_file

from mlkd.config.schema import TrainConfig
from mlkd.deploy.source import assistant_of, open_source
from mlkd.output.errors import UserError
from mlkd.reporting.collect import collect
from mlkd.runs.index import finished_runs
from mlkd.runs.inventory import inventory
from mlkd.runs.record import read_record
from mlkd.storage.files import encoder_fingerprint
from mlkd.storage.seals import Damaged, compare, hashes


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def vanish(path: Path) -> None:
    path.unlink()


def one_line(error: pytest.ExceptionInfo[UserError], path: Path) -> None:
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def largest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize(
    "harm", [flip, *(pytest.param(harm, marks=pytest.mark.slow) for harm in (truncate, vanish))]
)
def test_damaged_caches_are_named_and_made_again(
    tiny: Callable[..., TrainConfig], assistant: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None],
) -> None:  # fmt: skip
    from mlkd.recipes.run import run_chain

    expected = weights(tmp_path / "out", "assistant")
    cache = tmp_path / "out/cache"
    kinds = ("pairs-*", "tokens-*", "targets-*/segment-*", "assistant-*", "scores-*", "speed-*")
    harmed = [largest(folder) for kind in kinds for folder in cache.glob(kind)]
    assert len(harmed) >= len(kinds)
    for path in harmed:
        harm(path)
    shutil.rmtree(tmp_path / "out/runs")
    run_chain(tiny(stage="assistant"))
    for path in harmed:
        (line,) = [r for r in caplog.messages if str(path) in r]
        assert "again" in line
    again = weights(tmp_path / "out", "assistant")
    assert all(torch.equal(expected[name], again[name]) for name in expected)


def test_cache_of_another_corpus_is_noticed(
    tiny: Callable[..., TrainConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mlkd.recipes.chain import open_chain

    first = open_chain(tiny(stage="assistant")).pairs
    other = open_chain(tiny("data.dev_fraction=0.3", stage="assistant")).pairs
    assert first.fingerprint != other.fingerprint
    shutil.rmtree(first.folder)
    shutil.copytree(other.folder, first.folder)
    assert open_chain(tiny(stage="assistant")).pairs.fingerprint == first.fingerprint
    assert f"{first.folder}: its files belong to something else; it is made again" in caplog.text


@pytest.mark.parametrize("harm", [flip, truncate, vanish])
@pytest.mark.parametrize("name", ["student/model.safetensors", "student/config.json", "run.json"])
def test_a_damaged_finished_run_is_refused_and_left_alone(
    tiny: Callable[..., TrainConfig], assistant: Path, name: str, harm: Callable[[Path], None]
) -> None:
    from mlkd.recipes.run import run_chain

    harm(assistant / name)
    before = hashes(assistant)
    with pytest.raises(UserError, match="move the folder of the run away") as error:
        run_chain(tiny(stage="assistant"))
    one_line(error, assistant / name)
    assert hashes(assistant) == before


def test_a_changed_record_is_damaged_for_all_who_read_it(assistant: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert [run.id for run in finished_runs(output).values()] == [assistant.name]
    assert open_source(str(assistant)).name == assistant.name
    file = assistant / "run.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    for read in (read_record, lambda path: open_source(str(path)), assistant_of):
        with pytest.raises(Damaged, match="its checksum is not that of its content") as error:
            read(assistant)
        one_line(error, file)
    assert finished_runs(output) == {}
    assert [entry.status for entry in inventory(output)] == ["damaged"]
    assert [cell.error for cell in collect([str(output)])] == ["run.json is damaged"]


def test_student_of_another_run_is_refused(
    tiny: Callable[..., TrainConfig], assistant: Path, tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    run_chain(tiny("seed=1", stage="assistant"))
    first, second = (tmp_path / "out/runs").glob("assistant-*")
    shutil.rmtree(first / "student")
    shutil.copytree(second / "student", first / "student")
    record = (first / "run.json").read_text()
    with pytest.raises(UserError, match="damaged") as error:
        for config in (tiny(stage="assistant"), tiny("seed=1", stage="assistant")):
            run_chain(config)
    one_line(error, first)
    shutil.copy(second / "run.json", first / "run.json")
    with pytest.raises(UserError, match="not the record of this run") as error:
        for config in (tiny(stage="assistant"), tiny("seed=1", stage="assistant")):
            run_chain(config)
    one_line(error, first / "run.json")
    assert (first / "run.json").read_text() != record


def test_upstream_changed_under_a_finished_run_is_not_reused(
    tiny: Callable[..., TrainConfig], chain: dict[str, Path], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    from mlkd.recipes.run import run_chain

    folder, run = chain["bottleneck"], chain["recurrent"]
    file = folder / "student/model.safetensors"
    tensors = load_file(file)
    save_file({k: v + 0.01 for k, v in tensors.items()}, file, metadata={"format": "pt"})
    record = json.loads((folder / "run.json").read_text())
    made = folder / "student"  # as if it had been made so elsewhere
    output = {"content": encoder_fingerprint(made), "files": hashes(made)}
    record |= {"outputs": {"student": output}}
    del record["checksum"]
    (folder / "run.json").write_text(json.dumps(record))
    before = hashes(run)
    caplog.set_level("INFO")
    run_chain(tiny(stage="recurrent"))
    assert f"{run.name}: not reused, the start that it was trained with is another" in caplog.text
    assert "bottleneck: reused (" in caplog.text
    assert "recurrent: ran (" in caplog.text
    kept = tmp_path / "out/runs/superseded" / f"{run.name}-1"
    assert hashes(kept) == before


def test_a_fingerprint_follows_every_change_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"abc")
    first = encoder_fingerprint(tmp_path)
    time.sleep(0.05)  # the clock of a file system ticks every few milliseconds
    flip(file)
    second = encoder_fingerprint(tmp_path)
    before = file.stat()
    time.sleep(0.05)
    flip(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps times
    assert second != first
    assert encoder_fingerprint(tmp_path) == first
    (tmp_path / "0_Transformer").mkdir()
    for name in ("sentencepiece.bpe.model", "0_Transformer/tokenizer.json"):
        before_it = encoder_fingerprint(tmp_path)
        (tmp_path / name).write_text("{}")
        assert encoder_fingerprint(tmp_path) != before_it


def test_names_in_checksums_do_not_leave_their_folder(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    for name in ("../outside", str(tmp_path / "outside"), "a/../../outside"):
        with pytest.raises(Damaged, match="leaves the folder"):
            compare(tmp_path / "cache", {name: "0"})
