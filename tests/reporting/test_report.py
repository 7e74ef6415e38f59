from __future__ import annotations

import csv
import errno
import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command

from mlkd.config.command_line import command_of
from mlkd.config.commands import ExportConfig
from mlkd.config.compose import composing, configured, validate
from mlkd.config.schema import TrainConfig
from mlkd.config.section import Decides
from mlkd.config.trees import compose_tree
from mlkd.output.errors import UserError
from mlkd.report import as_overrides
from mlkd.reporting.build import references_of, write_report
from mlkd.reporting.collect import ReportCell, collect, curve
from mlkd.reporting.compare import comparable, front, group_seeds, heat_maps, select
from mlkd.reporting.figures import _ratios, title_of
from mlkd.training.ratios import Ratios


@pytest.fixture(scope="module")
def cells(sweep: Path) -> list[ReportCell]:
    return collect([str(sweep)])


def by_status(cells: list[ReportCell]) -> dict[str, int]:
    return {s: sum(c.status == s for c in cells) for s in dict.fromkeys(c.status for c in cells)}


def test_a_sweep_has_all_its_cells_with_their_chains(cells: list[ReportCell]) -> None:
    assert by_status(cells) == {"finished": 5, "failed": 1, "missing": 1}
    for cell in cells[:5]:
        assert cell.record["link"] == "contrastive"
        assert cell.measured["scores"]["mean"]["dev"]["sts"] is not None
    (failed,) = (c for c in cells if c.status == "failed")
    assert failed.error == "OutOfMemoryError: no memory left"
    assert failed.log is not None


def test_a_folder_of_runs_gives_whole_chains_and_no_inner_links(sweep: Path) -> None:
    cells = collect([str(sweep.parent.parent / "runs")])
    assert by_status(cells) == {"failed": 1, "finished": 5}
    for cell in cells:
        assert (cell.student_seconds is None) == (cell.status == "failed")
        if cell.status == "finished":
            stages = [link.name.split("-")[0] for link in cell.links]
            assert stages == ["assistant", "bottleneck", "recurrent", "contrastive"]


def test_an_output_folder_names_each_cell_once(sweep: Path, cells: list[ReportCell]) -> None:
    found = collect([str(sweep.parent.parent)])
    assert [c.id for c in found] == [c.id for c in cells]
    both = collect([str(sweep), str(sweep / "sweep.json"), str(sweep.parent.parent)])
    assert [c.id for c in both] == [c.id for c in cells]


def test_a_run_of_two_sweeps_counts_once(sweep: Path, cells: list[ReportCell]) -> None:
    wider = sweep.with_name("wider")
    shutil.copytree(sweep, wider)
    try:
        found = collect([str(sweep), str(wider)])
    finally:
        shutil.rmtree(wider)
    # What has no run yet is missing in each of them.
    assert by_status(found) == {"finished": 5, "failed": 2, "missing": 2}
    assert found[:7] == cells


def test_a_cell_whose_last_run_is_gone_is_missing(sweep: Path, cells: list[ReportCell]) -> None:
    last, away = cells[1].links[-1], sweep / "away"
    last.rename(away)
    try:
        cell = collect([str(sweep)])[1]
    finally:
        away.rename(last)
    assert (cell.status, cell.id, cell.record) == ("missing", "cell1", {})
    assert cell.links == cells[1].links[:-1]


def test_damaged_and_odd_links_leave_the_rest_of_the_report(
    cells: list[ReportCell], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chain = cells[0].links
    for link in chain:
        shutil.copytree(link, tmp_path / "runs" / link.name)
    first, second, third, last = (tmp_path / "runs" / link.name for link in chain)
    (first / "run.json").write_text("{")
    odd = json.loads((second / "run.json").read_text())
    del odd["checksum"]
    # It starts from the link that starts from it.
    odd["inputs"] = {"start": {"run": third.name}, "target": "assistant", "other": {"run": 5}}
    (second / "run.json").write_text(json.dumps(odd))
    job = {"config": {"stage": "contrastive", "of": "another version"}}
    runs = [link.name for link in chain]
    known: dict[str, Any] = {"runs": runs, "overrides": {}, "status": "finished"}
    content = {
        "cells": [
            known | {"id": "a"},
            known | {"id": "b", "status": "failed"},
            known | {"id": "c", "runs": [5]},
            {"id": "d"},
            5,
        ]
    }
    sweep = tmp_path / "multirun" / "odd"
    (sweep / "jobs").mkdir(parents=True)
    (sweep / "jobs" / "a.json").write_text(json.dumps(job))
    (sweep / "sweep.json").write_text(json.dumps(content))
    found = collect([str(tmp_path)])
    words = [(cell.id, cell.status) for cell in found[:2]]
    assert words == [(last.name, "finished"), ("b", "failed")]
    page = write_report(found, tmp_path / "report", "odd").read_text()
    assert last.name in page
    assert caplog.text.count(f"{first}/run.json: damaged (not JSON)") == 1
    assert caplog.text.count("sweep.json: damaged, 2 cells can be read") == 1
    (only,) = collect([str(last)])
    assert [link.name for link in only.links] == [second.name, third.name, last.name]


def test_one_run_folder_is_a_cell(cells: list[ReportCell]) -> None:
    (cell,) = collect([str(cells[0].links[-1])])
    assert cell.id == cells[0].id
    assert len(cell.links) == 4
    taken = [
        json.loads((link / "run.json").read_text())["training"]["seconds"] for link in cell.links
    ]
    assert cell.student_seconds == cells[0].student_seconds == pytest.approx(sum(taken[1:]))


def test_seconds_of_a_student_are_those_of_all_its_links_or_none(
    cells: list[ReportCell], tmp_path: Path
) -> None:
    chain = collect([str(cells[0].links[-1])])[0].links
    for link in chain:
        shutil.copytree(link, tmp_path / link.name)
    last = tmp_path / chain[-1].name

    def seconds() -> float | None:
        return collect([str(last)])[0].student_seconds

    assert seconds() == cells[0].student_seconds
    shutil.rmtree(tmp_path / chain[0].name)  # the assistant
    assert seconds() == cells[0].student_seconds
    middle = tmp_path / chain[1].name / "run.json"
    record = json.loads(middle.read_text())
    del record["checksum"]
    for training in ({}, None):
        middle.write_text(json.dumps(record | {"training": training}))
        assert seconds() is None
    shutil.rmtree(middle.parent)
    assert seconds() is None


def test_unfinished_and_damaged_runs_are_told_apart(
    cells: list[ReportCell], tmp_path: Path
) -> None:
    chain = collect([str(cells[0].links[-1])])[0].links
    for link in chain:
        shutil.copytree(link, tmp_path / "runs" / link.name)
    last = tmp_path / "runs" / chain[-1].name / "run.json"
    written = json.loads(last.read_text())
    record = {key: value for key, value in written.items() if key != "checksum"}
    word: dict[str, Any] = {}
    odd = {
        f"{key} is {value}": record | {key: value}
        for key, value in {
            "status": 5, "config": [], "metrics": {"scores": 5}, "references": {"teacher": None},
            "training": {"seconds": "x"},
        }.items()
    }  # fmt: skip
    for name, changed in {
        "killed": record | {"status": "interrupted", "reason": "Interrupted('SIGTERM')"},
        "unmeasured": {k: v for k, v in record.items() if k != "metrics"},
        "changed": written | {"selected": 100.0},
        "damaged": None,
        **odd,
    }.items():
        last.write_text(json.dumps(changed) if changed else "{")
        (cell,) = collect([str(tmp_path)])[:1]
        word[name] = (cell.status, cell.error)
    assert word["killed"] == ("interrupted", "Interrupted('SIGTERM')")
    assert word["unmeasured"][0] == "interrupted"
    assert word["damaged"] == word["changed"] == ("failed", "run.json is damaged")
    assert {name: word[name] for name in odd} == dict.fromkeys(odd, word["damaged"])
    shutil.rmtree(last.parent)
    (cell,) = collect([str(tmp_path)])
    assert (cell.status, cell.error) == ("missing", "the chain stopped after recurrent")


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=str(source)):
            collect([str(source)])


def test_seeds_are_put_together(cells: list[ReportCell]) -> None:
    groups = group_seeds(cells)
    assert [len(g.cells) for g in groups if len(g.cells) > 1] == [2]
    (pair,) = (g for g in groups if len(g.cells) == 2)
    assert pair.settings == {"bottleneck": 4, "recurrence": 2}
    scores = [c.measured["scores"]["mean"]["test"]["sts"] for c in pair.cells]
    number = pair.numbers["test_sts"]
    assert number.n == 2
    assert number.mean == pytest.approx(sum(scores) / 2)
    assert number.sd == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
    alone = [g.numbers["mib"].sd for g in groups if len(g.cells) == 1 and g.numbers]
    assert alone == [None] * 3


def test_what_decides_a_result_tells_groups_apart(cells: list[ReportCell]) -> None:
    first, second = (c for g in group_seeds(cells) if len(g.cells) == 2 for c in g.cells)
    training = second.record["training"] | {"precision": "bf16"}  # auto on another machine
    other = replace(second, record=second.record | {"training": training})
    assert [g.settings["precision"] for g in group_seeds([first, other])] == ["bf16", "fp32"]
    trainer = second.config["trainer"] | {"precision": "auto"}
    missing = replace(
        second, status="missing", record={}, config=second.config | {"trainer": trainer}
    )
    assert len(group_seeds([first, missing])) == 1
    same = replace(
        second, config=second.config | {"trainer": second.config["trainer"] | {"threads": 7}}
    )
    assert len(group_seeds([first, same])) == 1


def test_the_front_is_what_nothing_beats(cells: list[ReportCell]) -> None:
    groups = [g for g in group_seeds(cells) if g.numbers]
    best = front(groups, "mib", "test_sts")
    pairs = {g.label: (g.numbers["mib"].mean, -g.numbers["test_sts"].mean) for g in groups}
    beaten = {
        a
        for a, x in pairs.items()
        for b, y in pairs.items()
        if y != x and y[0] <= x[0] and y[1] <= x[1]
    }
    assert {g.label for g in best} == pairs.keys() - beaten


def test_a_heat_map_has_the_failed_and_the_missing_cell(cells: list[ReportCell]) -> None:
    (item,) = heat_maps(group_seeds(cells))
    assert item.bottlenecks == [4, 8]
    assert item.recurrences == [1, 2, 3, 4]
    assert item.groups[4, 3].cells[0].status == "failed"
    assert item.groups[4, 4].cells[0].status == "missing"
    assert (8, 4) not in item.groups


def test_selection_is_by_dev_within_the_budget(cells: list[ReportCell]) -> None:
    done = [c for c in cells if c.measured]
    best = select(cells, 1000)
    dev = {c.id: c.measured["scores"]["mean"]["dev"]["sts"] for c in done}
    assert dev[best.id] == max(dev.values())
    sizes = sorted({c.measured["mib"] for c in done})
    assert select(cells, sizes[0]).measured["mib"] == sizes[0]
    with pytest.raises(UserError, match=r"budget_mib=0\.0001: the smallest student has"):
        select(cells, 0.0001)
    with pytest.raises(UserError, match="no finished student"):
        select([c for c in cells if not c.measured], 20)


def rescored(cell: ReportCell, **changes: Any) -> ReportCell:
    """The cell with other numbers in its record."""
    record = json.loads(json.dumps(cell.record))
    for name, values in record["metrics"]["scores"]["sets"].items():
        for numbers in values["pairs"].values():
            numbers["spearman"] = changes[name]
    return ReportCell(cell.id + "x", "finished", cell.config, record, cell.links)


def test_test_scores_do_not_select(cells: list[ReportCell]) -> None:
    good_on_test = rescored(cells[0], dev=10.0, test=90.0)
    good_on_dev = rescored(cells[1], dev=90.0, test=10.0)
    assert select([good_on_test, good_on_dev], 1000) is good_on_dev


def test_cells_scored_on_other_sets_do_not_compare(
    cells: list[ReportCell], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = json.loads(json.dumps(cells[0].record))
    sets = record["metrics"]["scores"]["sets"]
    sets["other"] = sets.pop("dev")
    other = ReportCell("other", "finished", cells[0].config, record, cells[0].links)
    kept, odd = comparable([*cells, other])
    assert odd == [other]
    assert kept == cells
    with pytest.raises(UserError, match="different dev sets"):
        select([*cells, other], 20)
    record["metrics"]["scores"]["sets"]["dev"] = sets.pop("other")
    same = ReportCell("same", "finished", cells[0].config, record, cells[0].links)
    assert comparable([*cells, same])[1] == []
    # A set of that name and those languages, of other sentences.
    content = record["metrics"]["scores"]["sets"]["dev"]["content"]
    content["en-de"] = content["en-de"][::-1]
    assert comparable([*cells, same])[1] == [same]
    write_report([*cells, other], tmp_path, "title")
    assert "scored on other evaluation sets, so not compared: other" in caplog.text
    assert "other," not in (tmp_path / "table.csv").read_text()


def test_curves_have_every_stage(cells: list[ReportCell]) -> None:
    links = collect([str(cells[0].links[-1])])[0].links
    assert len(links) == 4
    for link in links:
        values = curve(link)
        assert [step for step, _ in values["dev/loss"]] == sorted(
            step for step, _ in values["dev/loss"]
        )
        assert values["dev/loss"][-1][1] > 0


def test_a_skipped_batch_has_no_point_in_a_curve(tmp_path: Path) -> None:
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "metrics.csv").write_text(
        "step,dev/loss,train/loss\n0,,2.5\n10,,nan\n20,inf,1.5\n"
    )
    assert curve(tmp_path) == {"train/loss": [(0, 2.5), (20, 1.5)]}


def test_several_assistants_are_all_named(cells: list[ReportCell]) -> None:
    measured = cells[:2]
    assert list(references_of(measured)) == ["teacher", "assistant"]  # of one seed
    record = json.loads(json.dumps(cells[1].record))
    record["references"]["assistant"]["scores"]["mean"]["test"]["sts"] = 12.5
    found = references_of([cells[0], replace(cells[1], record=record)])
    assert list(found) == ["teacher", "assistant", "assistant 2"]
    assert found["assistant"] == cells[0].record["references"]["assistant"]
    assert found["assistant 2"]["scores"]["mean"]["test"]["sts"] == 12.5


def test_a_long_curve_is_thinned_and_keeps_its_end(tmp_path: Path) -> None:
    (tmp_path / "curves").mkdir()
    lines = ["step,train/loss", *(f"{i},{i}.5" for i in range(1001))]
    (tmp_path / "curves" / "metrics.csv").write_text("\n".join(lines))
    points = curve(tmp_path)["train/loss"]
    assert len(points) <= 200
    assert points[-1] == (1000, 1000.5)


def test_the_command_of_a_cell_composes_to_its_configuration(cells: list[ReportCell]) -> None:
    for cell in cells:
        assert recomposed(command_of(cell.config)) == deciding(cell.config)


OVERRIDES = [
    [],
    ["stage=recurrent", "student=minilm_tiny", "seed=3"],
    ["init=copy", "student.bottleneck=null", "stages.bottleneck.enabled=false"],
    ["loss@stages.contrastive.loss=pair_mse_ce", "data=tsv", "data.root=\"my corpus/it's\"",
     "data.corpora.pairs.targets=[de,fr]"],
    ["teacher=all_mpnet", "assistant=xlmr_paraphrase", "student=xlmr_small"],
    ["experiment=real_en_de", "data.root=somewhere", "eval.root=somewhere"],
]  # fmt: skip


@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda o: " ".join(o) or "none")
def test_the_command_of_any_configuration_composes_to_it(overrides: list[str]) -> None:
    with composing():
        config = validate(compose_tree("train", overrides), TrainConfig).model_dump(mode="json")
    command = command_of(config)
    assert recomposed(command) == deciding(config)
    if not overrides:
        assert command == "python -m mlkd.train stage=contrastive"


def test_what_a_record_is_too_old_to_have_is_not_taken_out() -> None:
    config = configured("train", TrainConfig).model_dump(mode="json")
    del config["teacher"]["prompt"], config["trainer"]["skip_bad_batches"]
    del config["stages"]["recurrent"]["inputs"]
    assert command_of(config) == "python -m mlkd.train stage=contrastive"


def recomposed(command: str) -> dict[str, Any]:
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "mlkd.train"]
    return deciding(configured("train", TrainConfig, words[3:]).model_dump(mode="json"))


def deciding(config: dict[str, Any]) -> dict[str, Any]:
    """What decides a result, seeds and the order of links included."""
    known = TrainConfig.model_validate(config)
    return known.deciding({*Decides} - {Decides.NOTHING})


def test_folders_and_select_stand_without_a_key() -> None:
    assert as_overrides(["select", "budget_mib=20"]) == ["action=select", "budget_mib=20"]
    assert as_overrides(["a/b c", "output=x", "d"]) == ["output=x", "sources=['a/b c','d']"]
    words = ["--cfg", "job", "a", "-c", "job", "~output"]
    assert as_overrides(words) == ["--cfg", "job", "-c", "job", "~output", "sources=['a']"]


def test_all_files_are_written(cells: list[ReportCell], tmp_path: Path) -> None:
    assert write_report(cells, tmp_path, "a <sweep>") == tmp_path / "report.html"
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {"front.png", "heat-maps.png", "languages.png", "curves.png"}
    tables = {"table.csv", "references.csv", "curves.csv"}
    assert names == {"report.html", "report.md"} | tables | pictures
    for name in pictures:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(cells)
    for row, cell in zip(rows, sorted(cells, key=lambda c: [r["id"] for r in rows].index(c.id)),
                         strict=True):  # fmt: skip
        assert row["status"] == cell.status
        assert bool(row["test_sts"]) == bool(cell.measured)
        assert row["command"].startswith("python -m mlkd.train stage=contrastive")
        assert bool(row["finished"]) == bool(row["hardware"]) == bool(cell.measured)
        assert row["peak_memory_mib"] == str(cell.record.get("peak_memory_mib", ""))
        assert bool(row["peak_memory_mib"]) == bool(cell.measured)
        assert row["overrides"].startswith("student.bottleneck=")
    with (tmp_path / "references.csv").open(newline="") as file:
        teacher, assistant, other = csv.DictReader(file)
    names = [reference["model"] for reference in (teacher, assistant, other)]
    assert names == ["teacher", "assistant", "assistant 2"]  # one of each seed
    known = cells[0].record["references"]["assistant"]["scores"]["mean"]["test"]["sts"]
    assert float(assistant["test_sts"]) == pytest.approx(known)
    assert float(assistant["kept"]) == 100
    assert float(teacher["kept"]) == pytest.approx(100 * float(teacher["test_sts"]) / known)
    with (tmp_path / "curves.csv").open(newline="") as file:
        points = list(csv.DictReader(file))
    runs = {link for cell in cells for link in cell.links}
    wanted = [(r.name, at) for r in runs for at, _ in curve(r).get("dev/loss", [])]
    assert sorted((point["id"], int(point["step"])) for point in points) == sorted(wanted)
    assert all(float(point["dev/loss"]) > 0 for point in points)
    text = (tmp_path / "report.md").read_text()
    assert "7 cells: 5 finished, 1 failed, 1 missing" in text
    assert "OutOfMemoryError: no memory left" in text
    assert "| teacher |" in text
    assert " ± " in text
    page = (tmp_path / "report.html").read_text()
    assert "a &lt;sweep&gt;" in page
    assert "a <sweep>" not in page


@pytest.mark.slow
def test_a_full_disk_leaves_no_tables_without_their_page(
    cells: list[ReportCell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page, the largest file, is the last: on a full disk, everything else is there by then."""
    write_report(cells, tmp_path / "report", "before")
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("mlkd.reporting.build.write_page", full)
    few = [cell for cell in cells if cell.measured][:1]
    with pytest.raises(UserError, match=r"report: cannot be written \(No space left on device"):
        write_report(few, tmp_path / "report", "after")
    assert {p.name: p.read_bytes() for p in (tmp_path / "report").iterdir()} == before
    monkeypatch.undo()
    write_report(few, tmp_path / "report", "after")  # one cell has no heat map
    assert not (tmp_path / "report/heat-maps.png").exists()


def test_the_command_line_selects_and_says_how_to_export(
    sweep: Path, cells: list[ReportCell], command: Command
) -> None:
    done = command("mlkd.report", "select", "budget_mib=20", str(sweep))
    assert done.returncode == 0, done.stderr
    best = select(cells, 20)
    assert done.stdout.strip().endswith(f"student: {best.links[-1] / 'student'}")
    (export,) = re.findall(r"^export it: python -m mlkd.export (.+)$", done.stdout, re.M)
    with composing():
        config = validate(compose_tree("export", shlex.split(export)), ExportConfig)
    assert Path(config.run) == best.links[-1]


def test_wrong_input_is_refused_in_a_line(tmp_path: Path, command: Command) -> None:
    for words, message in [
        (["select"], "select needs budget_mib="),
        (["budget_mib=20"], "select needs budget_mib="),
        (["select", "budget_mib=0"], "budget_mib=0: input should be greater than 0"),
        (["select", "budget_mib=5", "output=there"], "output is not read by select"),
        (["entity=me"], "entity is only read by the action dashboard"),
        ([str(tmp_path)], "no runs and no sweeps in it"),
    ]:
        done = command("mlkd.report", *words)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_runs_that_weigh_domains_have_a_picture_of_their_ratios(
    sweep: Path, tmp_path: Path
) -> None:
    shutil.copytree(sweep.parent.parent, tmp_path / "outputs")
    cells = collect([str(tmp_path / "outputs/multirun" / sweep.name)])
    groups = group_seeds(cells)
    (several,) = (group for group in groups if len(group.cells) > 1)
    lone, seeded = cells[0].links[-1], several.cells[1].links[-1]
    for folder, shares in ((lone, (0.25, 0.75)), (seeded, (0.5, 0.5))):
        (folder / "domain_weights").mkdir()
        step = json.loads((folder / "run.json").read_text())["training"]["best"]["step"]
        rows = [f"{step:.0f},{layer},{name},{share}" for layer in range(3)
                for name, share in zip(("<books>", "music"), shares, strict=True)]  # fmt: skip
        text = "\n".join(["step,layer,domain,ratio", *rows, ""])
        (folder / "domain_weights/ratios.csv").write_text(text)
    write_report(cells, tmp_path / "report", "ratios")
    assert (tmp_path / "report/ratios.png").read_bytes().startswith(b"\x89PNG")
    assert "ratios.png" in (tmp_path / "report/report.md").read_text()
    page = (tmp_path / "report/report.html").read_text()
    assert "Ratios of layers and domains</h2>" in page and "<books>" not in page
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    one, other = sorted(json.loads(data)["ratios"], key=lambda run: run["values"][0][0][0])
    assert one["run"] == lone.name and one["domains"] == ["<books>", "music"]
    assert one["values"] == [[[0.25, 0.75]] * 3] and one["kept"] == 0
    assert one["states"] == ["embedding", "layer 1", "layer 2"]
    assert one["title"] == "bottleneck=4 recurrence=1"
    assert other["title"] == f"{several.label} seed=1"
    assert title_of(lone, [*groups, *groups]) == lone.name  # of several cells


def test_a_picture_of_many_ratios_says_that_it_has_the_first_ones() -> None:
    some = Ratios((1,), ("a", "b"), np.full((1, 3, 2), 0.5), 0)
    titles = []
    for count in (12, 13):
        figure = _ratios([], {Path(f"run-{number}"): some for number in range(count)})
        assert figure is not None and len(figure.subfigs) == 12
        titles.append(figure.get_suptitle())
    assert titles == ["", "The first 12 of 13 runs; the page has all"]
