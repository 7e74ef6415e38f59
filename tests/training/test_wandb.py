"""What W&B itself wrote offline is read back."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import wandb
from conftest import configure, run_until, tiny_settings, write_corpus
from wandb.proto import wandb_internal_pb2

from mlkd.config.schema import TrainConfig
from mlkd.output.errors import UserError
from mlkd.recipes.run import run_chain
from mlkd.reporting.collect import ReportCell, collect
from mlkd.reporting.dashboard import publish
from mlkd.training.wandb_logger import has_key, may_send

BLOCK = 32768


def log_records(path: Path) -> Iterator[Any]:
    """Records of a ``.wandb`` file: LevelDB's log format after a header of seven bytes."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(content):
        if BLOCK - position % BLOCK < 7:  # the rest of a block is padding
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


class Written:
    """A W&B run as its offline files tell it."""

    def __init__(self, folder: Path, part: int = 0) -> None:
        file = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))[part]
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.artifacts: list[Any] = []
        for record in log_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self._update(self.config, record.run.config.update)
            elif kind == "config":
                self._update(self.config, record.config.update)
            elif kind == "history":
                row: dict[str, Any] = {}
                self._update(row, record.history.item)
                self.history.append(row)
            elif kind == "summary":
                self._update(self.summary, record.summary.update)
            elif kind == "artifact":
                self.artifacts.append(record.artifact)
            elif kind == "exit":
                self.exit = record.exit.exit_code

    @staticmethod
    def _update(target: dict[str, Any], items: Any) -> None:
        for item in items:
            target[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)

    def column(self, name: str) -> list[float]:
        return [row[name] for row in self.history if name in row]


@pytest.fixture(scope="module")
def cell(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ReportCell:
    folder = tmp_path_factory.mktemp("wandb")
    corpus = write_corpus(folder / "corpus")
    config = configure(
        *tiny_settings(encoder_folder, corpus, folder / "outputs", 4),
        "trainer.validations=2",
        "logger=wandb",
        "logger.group=a sweep",
        "logger.tags=[one,two]",
        "logger.artifact=true",
        "stages.contrastive.max_steps=12",
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("WANDB_API_KEY", raising=False)
        environment.setenv("NETRC", str(folder / "none"))
        run_chain(config)
    wandb.teardown()  # its service may still have been writing, as at the end of a process
    (found,) = collect([str(folder / "outputs")])
    return found


@pytest.fixture(scope="module")
def written(cell: ReportCell) -> Written:
    return Written(cell.links[-1])


@pytest.mark.slow
def test_every_link_is_a_run_of_its_own_id_group_and_type(cell: ReportCell) -> None:
    assert len(cell.links) == 4
    for link in cell.links:
        run = Written(link).run
        assert run.run_id == link.name
        assert run.run_group == "a sweep"
        assert run.job_type == link.name.split("-")[0]
        assert list(run.tags) == ["one", "two"]
        assert run.project == "mlkd"


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_wandb_run(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    config = tiny("logger=wandb", "stages.assistant.max_steps=12", stage="assistant")
    run_until(config, 7)
    run_chain(config)
    wandb.teardown()
    (folder,) = (tmp_path / "out/runs").glob("assistant-*")
    first, second = (Written(folder, part) for part in (0, 1))
    assert first.run.run_id == second.run.run_id == folder.name
    steps = [max(part.column("trainer/global_step")) for part in (first, second)]
    assert steps[0] < steps[1]
    assert second.column("dev/loss")


def test_the_configuration_is_the_resolved_one(written: Written) -> None:
    config = written.config
    assert config["student/bottleneck"] == 4
    assert config["stages/contrastive/max_steps"] == 12
    assert config["stages/contrastive/loss/pair_mse/weight"] == 1.0
    assert config["seed"] == 0
    assert not [key for key in config if isinstance(config[key], dict) and key != "_wandb"]


def test_curves_have_losses_rate_speed_memory_and_spread(written: Written) -> None:
    train = {"loss", "pair_mse", "mcl", "lr", "gradient_norm"}
    dev = {"loss", "pair_mse", "mcl", "accuracy", "cosine", "rank"}
    names = {f"train/{n}" for n in train} | {f"dev/{n}" for n in dev}
    names |= {"speed/pairs_per_s", "memory/process_mib"}
    for name in names:
        assert written.column(name), name
    peak = written.config["stages/contrastive/lr"]
    assert written.column("train/lr")[0] == pytest.approx(peak * 3 / 11)  # step 9 of 12
    assert written.column("speed/pairs_per_s")[0] > 0
    assert written.column("memory/process_mib")[0] > 50
    assert written.exit == 0


def test_the_summary_is_the_record_of_the_run(cell: ReportCell, written: Written) -> None:
    metrics, summary = cell.record["metrics"], written.summary
    assert summary["result/parameters"] == metrics["parameters"]["total"] / 1e6
    assert summary["result/mib"] == metrics["mib"]
    assert summary["result/latency_ms"] == metrics["latency_ms"]["p50"]
    assert summary["result/kept"] == cell.record["share"]
    assert summary["result/test_sts"] == metrics["scores"]["mean"]["test"]["sts"]
    for split in ("dev", "test"):
        pairs = metrics["scores"]["sets"][split]["pairs"]
        assert len(pairs) == 3
        for pair, numbers in pairs.items():
            assert summary[f"pair/{split}/{split}/{pair}"] == numbers["spearman"]


def test_the_student_is_an_artifact_when_asked(cell: ReportCell, written: Written) -> None:
    (artifact,) = written.artifacts
    assert artifact.type == "model"
    paths = {entry.path for entry in artifact.manifest.contents}
    if artifact.manifest.manifest_file_path:
        manifest = json.loads(Path(artifact.manifest.manifest_file_path).read_text())
        paths |= set(manifest["contents"])
    files = {
        str(path.relative_to(cell.links[-1] / "student"))
        for path in (cell.links[-1] / "student").rglob("*")
        if path.is_file()
    }
    assert "model.safetensors" in files
    assert files <= paths


def test_a_key_is_found_where_wandb_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert has_key()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert may_send()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not may_send()


@pytest.mark.slow
def test_the_dashboard_of_an_offline_machine_is_a_file(
    cell: ReportCell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert Path(publish([cell], tmp_path, None)) == tmp_path / "dashboard.json"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="W&B does not take the view") as error:
        publish([cell], tmp_path, "me")
    assert "\n" not in str(error.value)


def test_the_dashboard_names_what_the_runs_have(
    cell: ReportCell, written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    path = Path(publish([cell], tmp_path, None))
    grids = [
        block["metadata"]
        for block in json.loads(path.read_text())["blocks"]
        if block["type"] == "panel-grid"
    ]
    panels = [p for grid in grids for p in grid["panelBankSectionConfig"]["panels"]]
    kinds = {panel["viewType"] for panel in panels}
    assert kinds == {
        "Scatter Plot",
        "Parallel Coordinates Plot",
        "Bar Chart",
        "Run History Line Plot",
    }
    text = json.dumps(panels)
    results = re.findall(r"summary:([^\"]+)", text)
    settings = re.findall(r"config:([^\"]+?)(?:\.value)?\"", text)
    assert {"result/test_sts", "result/mib"} <= set(results) <= set(written.summary)
    assert {"student/bottleneck", "seed"} <= set(settings) <= set(written.config)
    assert re.search(r"pair/test/test/en-de", text)
    patterns = re.findall(r'"metricRegex": "([^"]+)"', text)
    assert patterns
    names = {key for row in written.history for key in row}
    for pattern in patterns:
        assert [name for name in names if re.search(json.loads(f'"{pattern}"'), name)], pattern
    stages = [grid["runSets"][0]["name"] for grid in grids[3:]]
    assert stages == ["assistant", "bottleneck", "recurrent", "contrastive"]
    assert all("a sweep" in json.dumps(grid["runSets"][0]["filters"]) for grid in grids)


@pytest.mark.slow
def test_ratios_of_layers_and_domains_are_a_picture(
    encoder_folder: Path, finished_assistant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    corpus, output = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    shutil.copytree(finished_assistant, output)
    known = [x for x in tiny_settings(encoder_folder, corpus, output)
             if not x.startswith("stages.") or x.startswith("stages.assist")]  # fmt: skip
    sizes = ("max_steps=4", "epochs=9999", "batch_size=16")
    known += [f"stages.domains.{size}" for size in sizes]
    domain = "stages.domains.grouping.by=language"
    run_chain(configure("recipe=hrkd", "stage=domains", domain, "logger=wandb", *known))
    wandb.teardown()
    (folder,) = (output / "runs").glob("domains-*")
    written = Written(folder)
    assert written.column("ratios/_type") == ["image-file"]
    (place,) = written.column("ratios/path")
    (path,) = folder.glob(f"wandb/offline-run-*/files/{place}")
    with PIL.Image.open(path) as image:
        assert image.size[0] > 500 and len(image.getcolors(1 << 20) or ()) > 100
