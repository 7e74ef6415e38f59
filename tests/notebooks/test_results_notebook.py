"""The results notebook runs from the records beside it, and the pages say what they say."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from conftest import tiny_settings
from pages import PAGES, REPOSITORY, commands, sentences

README, DETAILS = sentences("README.md"), sentences("notebooks/README.md")
MARK = "<!-- table: "
WITH_TABLES = [name for name, text in PAGES.items() if MARK in text]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The notebook's variables after its last cell, run on a copy of what it reads and writes."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(REPOSITORY / "notebooks", folder / "notebooks")
    for name, text in PAGES.items():
        empty = re.sub(r"(<!-- table: .* -->\n).*?(<!-- end -->)", r"\1\2", text, flags=re.S)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(empty)
    notebook = nbformat.read(folder / "notebooks" / "results.ipynb", as_version=4)
    variables: dict[str, Any] = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder / "notebooks")
        patch.syspath_prepend(folder / "notebooks")
        for cell in notebook.cells:
            if cell.cell_type == "code":
                exec(cell.source, variables)
        for name in ("readme", "record", "recorded"):
            del sys.modules[name]
    return variables


@pytest.mark.parametrize("name", WITH_TABLES)
def test_the_tables_of_the_pages_are_those_of_the_notebook(
    name: str, results: dict[str, Any]
) -> None:
    assert (results["folder"] / name).read_text() == PAGES[name]
    assert " nan " not in PAGES[name]


def test_the_pages_have_all_tables_once() -> None:
    marks = [m for text in PAGES.values() for m in re.findall(rf"{MARK}(\w+) -->", text)]
    assert len(marks) == len(set(marks)) == 24
    assert WITH_TABLES == ["README.md", "notebooks/README.md"]  # those that readme.py knows


def test_a_table_takes_the_place_of_the_one_before(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = results["publish"]
    cell = {"finished": "2026-11-22T13:36:07+00:00", "hardware": "a processor"}
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- table: x -->\nold\n<!-- end -->\nb\n<!-- end -->\n")
    other = tmp_path / "other.md"
    other.write_text("no tables\n")
    monkeypatch.setitem(publish.__globals__, "PAGES", (other, readme))
    frame = pd.DataFrame(
        {"STS": ["12.3", ""], "ms": ["", ""]}, index=pd.Index(["m", "n"], name="k")
    )
    seeds = {"Seed 0; 2026-11-22": [0], "Seeds 0, 2; 2026-11-22": [2, 0]}
    for made, numbers in seeds.items():
        records = [pd.DataFrame([cell | {"seed": seed}]) for seed in numbers]
        publish("x", frame, records)
        lines = readme.read_text().splitlines()
        table = ["| k | STS | ms |", "| :-- | --: | --: |", "| m | 12.3 | |", "| n | | |"]
        assert lines[:7] == ["a", "<!-- table: x -->", "", *table]
        assert lines[7:] == [
            "",
            f"<sub>{made}; a processor.</sub>",
            "",
            "<!-- end -->",
            "b",
            "<!-- end -->",
        ]
    assert other.read_text() == "no tables\n"
    with pytest.raises(ValueError, match="no page has marks for the table nowhere"):
        publish("nowhere", frame, records)


def test_all_cells_of_the_tables_are_finished(results: dict[str, Any]) -> None:
    for name, table in results["tables"].items():
        assert table["finished"].notna().all()
        assert table["hardware"].notna().all()
        if results["TABLES"][name].module == "mlkd.baselines":
            assert set(table["seed"].groupby(table["model"]).apply(tuple)) == {(0, 1, 2)}
            continue
        assert (table["status"] == "finished").all()
        overrides = table["overrides"].fillna("").str.replace(r"\bseed=\d+", "", regex=True)
        seeds = table["seed"].groupby([table["sweep"].fillna(""), overrides]).apply(sorted)
        assert all(found == [0, 1, 2] for found in seeds), name
    rows = {"headline": 5, "sizes": 6, "rivals": 11, "parts": 11, "by_start": 9, "powers": 3}
    rows |= {
        "equal": 12,
        "starts": 6,
        "signals": 6,
        "of_pair": 6,
        "few": 12,
        "graph": 21,
        "genres": 6,
        "small": 10,
        "first": 8,
    }
    assert {name: len(results[name]) for name in rows} == rows


def test_the_pages_show_the_commands_of_the_tables(results: dict[str, Any]) -> None:
    for name, table in results["TABLES"].items():
        for command in table.commands:
            # That the commands of the pages are possible is test_readme's.
            ready = ["assistant.encoder.path=models/my-assistant"] if table.assistant else []
            whole = [*command.split(), "data.root=$CORPORA", *ready]
            assert whole in commands(table.module), (name, command)
        if table.assistant:
            assert [*table.assistant.split(), "data.root=$CORPORA"] in commands("mlkd.train")


def test_the_pages_draw_the_conclusions_of_their_tables(results: dict[str, Any]) -> None:
    tables, assistant = results["tables"], results["assistant"]

    for cells in results["students"].values():
        mean = cells[["parameters", "kept"]].mean()
        fewer = 100 - 100 * mean["parameters"] / assistant["parameters"]
        cost = f"{fewer:.0f} % fewer parameters cost {100 - mean['kept']:.1f} %"
        assert f"{cost} of the mean test STS" in README
        assert f"{cost} of the mean test STS" in DETAILS
    narrow = tables["headline_narrow"]
    assert (narrow["kept"] > 99).all()
    assert "found within 1 %, by each of the three seeds" in README
    assert "found within 1 %, by each of the three seeds" in DETAILS
    ahead = narrow["dev_sts"].mean() - tables["headline"]["dev_sts"].mean()
    behind = tables["headline"]["test_sts"].mean() - narrow["test_sts"].mean()
    shown = f"It is {ahead:.1f} points ahead of the first on dev, {behind:.1f} behind on test."
    assert shown in DETAILS


def test_the_pages_draw_the_conclusions_of_rivals(results: dict[str, Any]) -> None:
    means = results["means"]

    def gain(measure: str, model: str, less: str = "contrastive") -> float:
        return float(means.loc[model, measure] - means.loc[less, measure])

    apart = abs(gain("dev_sts", "mse recipe"))
    assert f"Chain and recipe are level on dev, {apart:.1f} points apart." in DETAILS
    assert f"the recipe is {gain('test_sts', 'mse recipe'):.1f} points of STS ahead" in DETAILS
    assert f"finds {-gain('test_bitext', 'mse recipe'):.1f} points more translations" in DETAILS
    last = [gain(measure, "contrastive", "recurrent") for measure in ("test_bitext", "test_sts")]
    assert f"finds {last[0]:.1f} points more translations than there were after" in DETAILS
    assert f"moves STS by {last[1]:.1f}." in DETAILS
    kept = f"{means.loc['start', 'kept']:.0f} % of the assistant's STS before any training"
    assert kept in DETAILS
    lost = [
        -gain("test_sts", "assistant int8", "assistant"),
        -gain("test_sts", "student int8"),
    ]
    assert "costs the assistant {:.1f} points and the student {:.1f}".format(*lost) in DETAILS


def test_the_pages_draw_the_conclusions_of_five_mib(results: dict[str, Any]) -> None:
    forms, least = results["by_form"], results["tables"]["headline_least"]
    student, int8, q4 = (forms.loc[f"student{form}"] for form in ("", ", int8", ", 4 bits"))
    rival, assistant = forms.loc["assistant, 4 bits, words in codes"], forms.loc["assistant"]

    kept = f"It keeps {student['kept']:.1f} % of the assistant's STS, {int8['kept']:.1f} % in int8"
    assert f"{kept} and {q4['kept']:.1f} % in 4 bits." in README
    assert f"assistant in that form, untrained, keeps {rival['kept']:.1f} %:" in README
    assert f"where {rival['mib']:.0f} MiB will do" in README
    part, faster = (q4[c] / rival[c] for c in ("mib", "sentences_per_s"))
    speed = f"encodes {faster:.1f} times as many sentences per second"
    assert f"The student takes {100 * part:.0f} % of the assistant's MiB and {speed}" in README

    found = f"finds {student['test_bitext']:.1f} % of the translations, the assistant "
    assert f"{found}{assistant['test_bitext']:.1f} %" in DETAILS
    costs = [student["test_sts"] - form["test_sts"] for form in (int8, q4)]
    assert "int8 costs {:.1f} points of STS, 4 bits {:.1f}.".format(*costs) in DETAILS
    assert 97 < q4["kept"] < 99  # within 3 %, not within 1 %
    assert 1.8 < int8["sentences_per_s"] / q4["sentences_per_s"] < 2  # nearly twice as fast
    before = [least[measure].mean() for measure in ("kept", "test_bitext")]
    assert "kept {:.1f} % and found {:.1f} %".format(*before) in DETAILS
    assert abs(student["parameters"] - least["parameters"].mean()) < 0.1
    assert f"keeps {rival['kept']:.1f} % in {rival['mib']:.1f} MiB" in DETAILS
    assert f"it has {100 * part:.0f} % of the size and {speed}" in DETAILS


def test_the_details_draw_the_conclusions_of_sizes_and_parts(results: dict[str, Any]) -> None:
    sizes = results["tables"]["sizes"]
    by_size = sizes.groupby(["bottleneck", "layers", "recurrence"])["dev_sts"].mean()
    deeper = [by_size[width, 4, 1] - by_size[width, 2, 1] for width in (64, 128)]
    wider = [by_size[128, depth, 1] - by_size[64, depth, 1] for depth in (2, 4)]
    widest = by_size[256, 2, 1] - by_size[128, 2, 1]
    twice = by_size[128, 2, 2] - by_size[128, 2, 1]
    assert "gain {:.1f} and {:.1f} points of dev STS for 3.6 million".format(*deeper) in DETAILS
    assert "gain {:.1f} and {:.1f} for 3.0 million".format(*wider) in DETAILS
    assert f"256 gain {widest:.1f} for 6.0 million" in DETAILS
    assert f"takes their time again and changes {twice:+.1f}" in DETAILS

    ablations = results["tables"]["ablations"].groupby("ablation")
    means = ablations[["dev_sts", "test_sts", "test_bitext"]].mean()
    less = means.loc["none"] - means
    dev, bitext = less["dev_sts"], less["test_bitext"]
    assert f"Leaving stage 3 out costs {dev['no_recurrent_stage']:.1f} points on dev" in DETAILS
    assert f"The bottleneck costs {-dev['no_bottleneck']:.1f} points of dev STS" in DETAILS
    assert f"save 3.5 million more and cost {dev['recurrence']:.1f} points" in DETAILS
    zero_one = f"cost {dev['boolean']:.1f} points of dev STS and {bitext['boolean']:.1f} points of"
    assert zero_one in DETAILS
    assert f"Cross-entropy finds {-bitext['cross_entropy']:.1f} points more" in DETAILS
    alike = ["no_bottleneck_stage", "no_contrastive_stage", "no_similarities", "direct_mse"]
    assert dev[alike].abs().max() < 0.15


def test_the_details_draw_the_conclusions_of_the_powers(results: dict[str, Any]) -> None:
    frequency = results["tables"]["frequency"]
    means = frequency.groupby("frequency_power")[["test_sts", "test_bitext"]].mean()
    one, half = means.loc[1.0], means.loc[0.5]
    assert f"takes test STS from {one['test_sts']:.2f} to {half['test_sts']:.2f}," in DETAILS
    fewer = one["test_bitext"] - half["test_bitext"]
    assert f"finds {fewer:.1f} points fewer translations" in DETAILS
    assert float(results["chosen"]) == 0.5


def test_the_details_say_in_short_what_makes_a_student_good(results: dict[str, Any]) -> None:
    tables = results["tables"]
    sizes = tables["sizes"].groupby(["bottleneck", "layers", "recurrence"])["dev_sts"].mean()
    deeper = [sizes[width, 4, 1] - sizes[width, 2, 1] for width in (64, 128)]
    wider = [sizes[128, depth, 1] - sizes[64, depth, 1] for depth in (2, 4)]
    widest = sizes[256, 2, 1] - sizes[128, 2, 1]
    (gain,) = {f"{value:.1f}" for value in deeper}
    assert f"two more stored layers gain {gain} points of dev STS" in DETAILS
    assert "instead of 64 gains {:.1f} to {:.1f}".format(*sorted(wider)) in DETAILS
    assert f"256 instead of 128 gains {widest:.1f}" in DETAILS
    assert abs(sizes[128, 2, 2] - sizes[128, 2, 1]) < 0.1  # twice gains nothing

    found = tables["ablations"].groupby("ablation")["test_bitext"].mean()
    more = found["cross_entropy"] - found["none"]
    assert f"Cross-entropy in stage 4 finds {more:.1f} points more" in DETAILS

    seen = results["effects"]["seen"]
    copied = seen.loc["copied weights: `teacher` instead of `scratch`, MSE"]
    taught = seen.loc[[f"MSE instead of no distillation, from `{s}`" for s in ("base", "teacher")]]
    assert f"gain {copied.min():.0f} to {copied.max():.0f} points of test STS" in DETAILS
    shown = f"distillation gains {taught.min().min():.1f} to {taught.max().max():.1f}"
    assert shown in DETAILS

    equal = tables["equal_size"].groupby(["layers", "bottleneck"])["dev_sts"].mean()
    narrow = sorted((equal[6, 128] - equal[4, 128], equal[5, 128] - equal[4, 64]))
    assert "gain {:.1f} to {:.1f} points of dev STS".format(*narrow) in DETAILS
    powers = tables["frequency"].groupby("frequency_power")["dev_sts"].mean()
    assert f"in the SVD gains {powers[0.5] - powers[1.0]:.1f}." in DETAILS


def test_the_details_draw_the_conclusions_of_word_tables(results: dict[str, Any]) -> None:
    starts = results["starts"].groupby("model")
    means, noise = (
        found.loc["48 codes"]
        for found in (
            starts[["dev_sts", "test_sts", "test_bitext", "mib"]].mean(),
            starts[["dev_sts", "test_sts", "test_bitext"]].std(),
        )
    )
    gain = means - starts[list(means.index)].mean().loc["bottleneck 64"]
    assert abs(gain["dev_sts"]) < noise["dev_sts"] and abs(gain["test_sts"]) < noise["test_sts"]
    assert gain["test_bitext"] > 2 * noise["test_bitext"]
    more = f"finds {gain['test_bitext']:.1f} points more translations"
    assert DETAILS.count(more) == 2
    fewer = 100 * -gain["mib"] / (means["mib"] - gain["mib"])
    assert f"takes {fewer:.0f} % fewer bytes" in DETAILS


def test_the_details_draw_the_conclusion_of_learned_ratios(results: dict[str, Any]) -> None:
    measures = ["dev_classification", "test_classification"]
    by_ratios = results["few"].groupby(["reviews", "ratios"])[measures]
    means = by_ratios.mean().unstack()
    gain = means.xs("learned", axis=1, level=1) - means.xs("all 1/D", axis=1, level=1)
    dev, test = gain.loc["10 %"]
    ahead = f"{test:.1f} points ahead on test with a tenth of the reviews and {-dev:.1f} behind"
    assert f"{ahead} on dev" in DETAILS
    dev, test = gain.loc["2 %"]
    assert f"with a fiftieth {test:.1f} ahead and {-dev:.1f} behind" in DETAILS
    worst = results["few"].groupby(["reviews", "ratios"])["test_worst"].mean().unstack()
    more = (worst["learned"] - worst["all 1/D"]).loc[["10 %", "2 %"]]
    assert "worst domain of test {:.1f} and {:.1f} ahead".format(*more) in DETAILS
    every = results["rivals_of_hrkd"].groupby("student")[measures].mean()
    soft, even, learned = (
        every.loc[name]
        for name in (
            "soft labels alone",
            "layers and soft labels, all 1/D",
            "layers and soft labels, learned ratios",
        )
    )
    dev, test = learned - even
    shown = (
        f"Learned ratios are {test:.1f} points ahead of 1/D on test and {-dev:.1f} behind on dev"
    )
    assert shown in DETAILS
    dev, test = even - soft
    assert f"are worth {dev:.1f} points beside soft labels alone on dev" in DETAILS
    assert f"on test they cost {-test:.1f}" in DETAILS
    dev, test = every.loc["one student a domain"] - learned
    assert (
        f"are {-test:.1f} points behind HRKD's one student on test, and {dev:.1f} ahead" in DETAILS
    )
    more = learned["test_classification"] - means["test_classification"].loc["10 %", "learned"]
    assert f"{more:.1f} points on test over a tenth of them" in DETAILS
    parts = results["graph"].groupby("graph")[measures].mean()
    apart = parts["dev_classification"].max() - parts["dev_classification"].min()
    assert f"all rows are within {apart:.1f} points there" in DETAILS
    whole, alternate = (
        parts["test_classification"].filter(like=f"(`{update}`)").iloc[0]
        for update in ("joint", "alternate")
    )
    assert f"On test `alternate` is {whole - alternate:.1f} points behind" in DETAILS


def test_the_details_draw_the_conclusion_of_layers(results: dict[str, Any]) -> None:
    signals = results["signals"].groupby("enabled")
    means, noise = (
        found[["dev_sts", "test_sts", "test_bitext"]]
        for found in (signals.mean(numeric_only=True), signals.std(numeric_only=True))
    )
    gain = means.loc[False] - means.loc[True]
    assert (gain > noise.max())[["dev_sts", "test_sts"]].all()
    seconds = signals["student_seconds"].mean()
    assert seconds[False] < seconds[True]
    shown = "{:.1f} points of dev STS, {:.1f} of test STS and {:.1f} points more translations"
    assert shown.format(*gain) in DETAILS


def test_the_pages_draw_the_conclusion_of_one_pair(results: dict[str, Any]) -> None:
    measures = ["dev_sts", "test_sts", "test_bitext", "kept", "parameters"]
    on_pair = results["on_pair"]
    two, five = (on_pair.groupby("layers")[measures].mean().loc[n] for n in (6, 5))
    whole = on_pair[on_pair["student"] == "assistant"].iloc[0]
    part = 100 * two["parameters"] / whole["parameters"]
    assert abs(two["parameters"] / five["parameters"] - 1) < 0.01
    kept = f"keeps {two['kept']:.1f} % of the assistant's test STS"
    assert kept in DETAILS and f"{part:.0f} % of the assistant's parameters" in DETAILS
    gain = two - five
    shown = "{:.1f} points ahead on dev, {:.1f} on test, and finds {:.1f} points more translations"
    assert shown.format(*gain[["dev_sts", "test_sts", "test_bitext"]]) in DETAILS
    lost = whole["test_bitext"] - two["test_bitext"]
    assert f"finds {lost:.1f} points fewer translations than the assistant" in DETAILS
    worst = 100 - on_pair[on_pair["layers"] == 6]["kept"].min()
    part_lost = 100 * lost / whole["test_bitext"]
    shown = f"a loss of {100 - two['kept']:.1f} % and {part_lost:.1f} %, in the mean of three seeds"
    assert f"{shown}, one of which lost {worst:.1f} %" in DETAILS
    assert f"English and German alone keeps {two['kept']:.1f} %" in DETAILS
    assert f"five languages {five['kept']:.1f} %" in DETAILS


def test_the_details_draw_the_conclusion_of_sparse_differences(results: dict[str, Any]) -> None:
    heads = ["test, English", "test, others", "test, English with others"]
    means = results["by_trained"][[*heads, "dev, English", "diff_mib", "mib"]].mean()
    whole, assistant = means.loc["student"], means.loc["assistant"]
    eight, one = (means.loc[f"student, {share} % of its entries"] for share in (8, 1))
    gain = (eight - whole)[heads]
    assert gain.min() > -1 and (assistant - eight)[heads].max() < 2
    shown = "{:.1f} points in English, {:.1f} in the others and {:.1f} across languages"
    assert shown.format(*gain) in DETAILS
    behind = (assistant - eight)[heads].max()
    assert f"at most {behind:.1f} points behind the assistant" in DETAILS
    assert f"{eight['diff_mib']:.1f} MiB beside a student of {eight['mib']:.0f}" in DETAILS
    least = (eight - one)["test, others"]
    shown = (
        f"1 % of them, {one['diff_mib']:.1f} MiB, is {least:.1f} points behind that in the others"
    )
    assert shown in DETAILS
    learned = (assistant - means.loc["assistant, before"])[heads]
    shown = (
        f"gain it {learned.min():.1f} to {learned.max():.1f} points, in languages without a label"
    )
    assert shown in DETAILS


def test_the_details_draw_the_conclusion_of_tweets(results: dict[str, Any]) -> None:
    heads = ["test, English", "test, others", "test, unseen"]
    columns = [*heads, "dev, English", "diff_mib"]
    means, noise = (
        found[columns]
        for found in (results["by_learner"][columns].agg(kind) for kind in ("mean", "std"))
    )
    whole, assistant = means.loc["student"], means.loc["assistant"]
    one, four, eight, most = (
        means.loc[f"student, {share} % of its entries"] for share in (1, 4, 8, 16)
    )
    told = "{:.1f} % of the English tweets, {:.1f} % of those in the others and {:.1f} % of those"
    assert told.format(*assistant[heads]) in DETAILS
    behind = (assistant - whole)[heads]
    assert "student is {:.1f}, {:.1f} and {:.1f} points behind".format(*behind) in DETAILS
    gain = eight - whole
    assert (gain[heads].abs() < noise[heads].max()).all() and behind.max() < 2
    shown = (
        f"8 % of its entries, {eight['diff_mib']:.1f} MiB, are {gain['test, English']:.1f} points "
        f"ahead of training all of them in English, {gain['test, others']:.1f} ahead in the others "
        f"and {-gain['test, unseen']:.1f} behind in unseen languages"
    )
    assert shown in DETAILS
    assert f"324 English tweets, they are {-gain['dev, English']:.1f} behind" in DETAILS
    dev = [found["dev, English"] for found in (one, four, eight, most)]
    assert dev == sorted(dev)
    assert f"{dev[0]:.1f} % with 1 % of them to {dev[-1]:.1f} % with 16 %" in DETAILS
    english = [found["test, English"] for found in (one, four, eight, most)]
    assert max(english) - min(english) < noise["test, English"].max()
    best = (one - whole)["test, others"]
    assert one["test, others"] == means["test, others"].drop("assistant").max()
    shown = f"the smallest, {one['diff_mib']:.1f} MiB, is the best in the others, {best:.1f} points"
    assert shown in DETAILS
    less = means["test, English"] - means["test, others"]
    assert f"{less.min():.0f} to {less.max():.0f} points less often than in English" in DETAILS


def test_the_details_draw_the_conclusion_of_domains_of_pairs(results: dict[str, Any]) -> None:
    worth = results["worth_of_ratios"]
    by_turns = worth.index.str.contains("by turns")
    on_pairs = worth.index.str.match("pairs by (origins|languages)") & ~by_turns
    assert on_pairs.sum() == 4

    def lost(column: str) -> list[float]:
        return sorted(-gain for gain, _ in worth.loc[on_pairs, column])

    translations, sts = lost("test_bitext"), lost("test_score")
    shown = f"find {translations[0]:.1f} to {translations[-1]:.1f} points fewer translations"
    assert f"{shown}, and test STS is {sts[0]:.1f} to {sts[-1]:.1f} points behind" in DETAILS
    assert all(-gain > width for gain, width in worth.loc[on_pairs, "test_bitext"])
    others = worth.loc[~on_pairs & ~by_turns, ["dev_score", "test_score"]].stack()
    beyond = [where for where, (gain, width) in others.items() if abs(gain) > width]
    assert beyond == [("10 % of the reviews: all 1/D", "dev_score")]
    assert f"one difference of {len(others)} is" in DETAILS
    widths = [width for _, width in worth[worth.index.str.contains("reviews")]["test_score"]]
    assert f"nothing below {min(widths):.1f} to {max(widths):.0f} points of test" in DETAILS
    by_genre = results["genres"].groupby("ratios").mean(numeric_only=True)
    less = by_genre.loc["all 1/D"] - by_genre.loc["learned"]
    shown = f"{less['dev_sts']:.1f} points behind on dev and {less['test_sts']:.1f} on test"
    forums = f"in forums, {less['test_forums_test_en-en']:.1f} behind"
    assert shown in DETAILS and forums in DETAILS
    kept = results["pairs_in"].groupby(results["setting"])["worst"].mean().unstack()
    less = sorted(kept["all 1/D"] - kept["learned"])
    assert f"{less[0]:.1f} to {less[-1]:.1f} points less of it are kept" in DETAILS
    assert {*results["pairs_in"]["least"]} == {"nl", "tatoeba"}
    turns = worth[by_turns]
    fewer, behind = (sorted(-gain for gain, _ in turns[c]) for c in ("test_bitext", "test_score"))
    assert f"they are {fewer[-1]:.1f} points fewer at most" in DETAILS and len(fewer) == 2
    assert "test STS is {:.1f} and {:.1f} points behind".format(*behind) in DETAILS
    worse = [name for name, (gain, width) in turns["test_score"].items() if -gain > width]
    assert worse == ["pairs by origins, 4 layers, bottleneck 128, by turns: all 1/D"]
    larger = results["pairs_in"].query("student == '4 layers, bottleneck 128'")
    seconds = larger.groupby("ratios")["seconds"].mean()
    assert 1.8 < seconds["learned by turns"] / seconds["all 1/D"] < 2.5  # about twice
    assert (results["cost_of_graph"].sub(1.005).abs() < 0.005).all()  # 1 % more of both


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(REPOSITORY / "notebooks")
    module = importlib.import_module("record")
    yield module
    for name in ("record", "recorded"):
        del sys.modules[name]


def test_an_unknown_table_is_refused(recorder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (["nothing"], "nothing: no such table"), (["a=b"], "no table is named"):
        assert recorder.main(words) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}; allowed: headline, ")


def test_a_table_may_have_a_ready_assistant(recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []

    def run(words: list[str]) -> str:
        told.append(words)
        return "runs/a/student"

    monkeypatch.setattr(recorder, "_run", run)
    monkeypatch.setattr(recorder, "join", lambda sources, target: None)
    recorder.record("bistil_pair", ["data.root=x", "hydra/launcher=slurm"])
    first, *trainings, report = told
    assert first == ["mlkd.train", *recorder.TABLES["bistil_pair"].assistant.split(), "data.root=x"]
    assert {tuple(words[-2:]) for words in trainings} == {
        ("hydra/launcher=slurm", "assistant.encoder.path=runs/a/student")
    }
    assert report[0] == "mlkd.report"


def test_a_report_without_rows_leaves_the_record(recorder: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "table.csv", tmp_path / "record.csv"
    source.write_text("id,test_sts\n")
    target.write_text("id,test_sts\na,1.0\n")
    with pytest.raises(SystemExit, match="the report has no rows"):
        recorder.join([source], target)
    assert target.read_text() == "id,test_sts\na,1.0\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_stops_a_recording_lets_its_command_save(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    (tmp_path / "training.py").write_text(
        "import os, signal, sys, time\n"
        "def save(number, frame):\n"
        "    time.sleep(1)\n"
        "    os.write(1, b'has saved\\n')\n"  # print may be what was interrupted
        "    sys.exit(128 + number)\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n"
        "    signal.signal(number, save)\n"
        "print('trains', flush=True)\n"
        "time.sleep(60)\n"
    )
    code = (
        "import sys, record\n"
        "record.record = lambda name, settings: record._run(['training'])\n"
        "sys.exit(record.main(['headline']))\n"
    )
    path = os.pathsep.join(map(str, (REPOSITORY / "notebooks", tmp_path)))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert "trains\n" in iter(process.stdout.readline, "")
    # Ctrl-C goes to all processes of a terminal, a cluster's SIGTERM to the first one.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    output, error = process.communicate(timeout=30)
    assert process.returncode == status
    assert "has saved" in output
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_table_is_recorded_from_its_runs(
    recorder: Any,
    encoder_folder: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "RESULTS", tmp_path)
    made_of = type(recorder.TABLES["headline"])
    tiny = made_of("English, German", ("-m stage=bottleneck seed=0,1",), besides=("references",))
    monkeypatch.setitem(recorder.TABLES, "tiny", tiny)
    settings = tiny_settings(encoder_folder, corpus, tmp_path / "outputs")
    assert recorder.main(["tiny", "assistant.seed=0", *settings]) == 0
    cells, references = (pd.read_csv(tmp_path / f"tiny{end}.csv") for end in ("", "_references"))
    assert list(cells["seed"]) == [0, 1]
    assert list(cells["overrides"]) == ["seed=0", "seed=1"]
    assert (cells["status"] == "finished").all()
    assert list(references["model"]) == ["teacher", "assistant"]
    assert str(tmp_path) not in (tmp_path / "tiny.csv").read_text()
