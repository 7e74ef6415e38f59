"""The results notebook runs from the tables beside it, and the README quotes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()
SEEDS = {"headline_four": 2} | dict.fromkeys(
    ("headline_small", "headline_narrow", "headline_least", "sizes", "frequency", "narrow"), 1
)
"""Tables of fewer than three seeds."""


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The notebook's variables after its last cell."""
    path = REPOSITORY / "notebooks" / "results.ipynb"
    monkeypatch.chdir(path.parent)
    notebook = nbformat.read(path, as_version=4)
    variables: dict[str, Any] = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, variables)
    return variables


def test_all_cells_of_the_tables_are_finished(results: dict[str, Any]) -> None:
    for name, table in results["tables"].items():
        assert table["seed"].nunique() == SEEDS.get(name, 3)
        assert (table["status"] == "finished").all()
        assert table["hardware"].notna().all()


def test_the_readme_quotes_english_german(results: dict[str, Any]) -> None:
    means = results["over_seeds"](results["pair"], "stages.contrastive.lr")
    assert float(results["chosen"]) == 1e-4
    for rate, line in means.iterrows():
        quoted = [spread(line[name]) for name in ("dev_sts", "test_sts", "kept", "test_bitext")]
        assert " | ".join(quoted) in README, rate


def test_the_readme_quotes_the_ablations(results: dict[str, Any]) -> None:
    for name, line in results["parts"].iterrows():
        (quoted,) = [row for row in README.splitlines() if f"(`{name}`) |" in row]
        for measure in ("dev_sts", "test_sts", "kept", "test_bitext"):
            mean = f"{line[measure, 'mean']:.2f}"
            several = line["seeds", ""] > 1
            assert f"| {spread(line[measure]) if several else mean} |" in quoted
        assert quoted.endswith(f"| {line['seeds', '']:.0f} |")


def test_the_readme_quotes_the_five_languages(results: dict[str, Any]) -> None:
    for table in results["students"].values():
        found = table[["dev_sts", "test_sts", "kept", "test_bitext"]].agg(["mean", "std"]).T
        quoted = [
            spread({"mean": mean, "sd": sd}) if len(table) > 1 else f"{mean:.2f}"
            for mean, sd in found.to_numpy()
        ]
        assert " | ".join(quoted) in README
    assert len(results["sizes"]) == 16
    for shape, line in results["sizes"].iterrows():
        size, fewer = line["parameters"], 100 - 100 * line["parameters"] / 28.70
        quoted = [*shape, f"{size:.2f}", f"{fewer:.0f} %", f"{line['dev_sts']:.2f}"]
        assert f"| {' | '.join(map(str, quoted))} |" in README
    student = results["headline"][["parameters", "kept"]].mean()
    assert "| assistant | 28.70 |" in README
    fewer, kept = 100 - 100 * student["parameters"] / 28.70, student["kept"]
    assert f"{fewer:.0f} % fewer parameters cost {100 - kept:.1f} % of the mean test STS" in README
    least = results["students"]["headline_least"]["kept"].mean()
    claim = f"half the assistant's size keeps {kept:.1f} % of its STS, one of a good quarter of it"
    assert f"{claim} {least:.1f} %" in " ".join(README.split())
    for name, cost in (("four", "cost"), ("narrow", "but"), ("least", "cost")):
        line = results["students"][f"headline_{name}"][["parameters", "kept"]].mean()
        smaller = 100 - 100 * line["parameters"] / 28.70
        text = " ".join(README.split())
        assert f"{smaller:.0f} % fewer" in text
        assert f"{cost} {100 - line['kept']:.1f} %" in text
    assert len(results["by_pair"]) == 11
    for pair, line in results["by_pair"].iterrows():
        assert f"| {pair} | {spread(line)} | {line['low']:.1f} to {line['high']:.1f} |" in README


def test_the_readme_quotes_the_similarities(results: dict[str, Any]) -> None:
    assert len(results["similarities"]) == 4
    for name, line in results["similarities"].iterrows():
        (quoted,) = [row for row in README.splitlines() if row.startswith(f"| `{name}`:")]
        measures = ("dev_sts", "test_sts", "kept", "test_bitext")
        assert " | ".join([*(spread(line[m]) for m in measures), "3 |"]) in quoted


def test_the_readme_quotes_the_narrow_students(results: dict[str, Any]) -> None:
    assert len(results["narrow"]) == 17
    shares = {0.0: "", 1e-6: "1e-6", 1e-5: "1e-5"}
    for (bottleneck, layers, neurons, share), line in results["narrow"].iterrows():
        size, fewer = line["parameters"], 100 - 100 * line["parameters"] / 28.70
        quoted = [f"{layers} | {neurons:,} | {shares[share]}".rstrip(), f"{size:.2f}"]
        quoted += [f"{fewer:.0f} %", f"{line['dev_sts']:.2f}"]
        assert f"| {bottleneck} | {' | '.join(quoted)} |" in README


def test_the_readme_quotes_the_powers_of_the_frequency(results: dict[str, Any]) -> None:
    powers = results["powers"]
    assert list(powers["dev_sts"]) == [0.0, 0.5, 1.0]
    for bottleneck, line in powers.iterrows():
        assert " | ".join([f"| {bottleneck}", *(f"{x:.2f}" for x in line["dev_sts"])]) in README
        one, half = (line["test_sts", power] for power in (1.0, 0.5))
        assert f"from {one:.2f} to {half:.2f} with {bottleneck}" in " ".join(README.split())


def test_the_readme_quotes_the_baselines(results: dict[str, Any]) -> None:
    assert len(results["baselines"]) == 10
    for name, line in results["baselines"].iterrows():
        scores = f"{line['dev_sts']:.2f} | {line['test_sts']:.2f} | {line['test_bitext']:.2f}"
        assert f"| {name} | {line['parameters']:.2f} | {line['mib']:.1f} | {scores} |" in README
    chain, recipe = (results["baselines"].loc[n, "test_sts"] for n in ("contrastive", "mse recipe"))
    assert f"level: {chain - recipe:.2f} points apart" in README
    for name in ("bottleneck", "contrastive", "mse recipe", "start"):
        line = results["short"].loc[name]
        scores = f"{line['dev_sts']:.2f} | {line['test_sts']:.2f} | {line['kept']:.1f}"
        assert f"| {name} | {scores} |" in README
    ahead = results["short"].loc["mse recipe", "test_sts"]
    assert f"ahead by {ahead - results['short'].loc['contrastive', 'test_sts']:.1f}" in README


def spread(line: Any) -> str:
    return f"{line['mean']:.2f} ± {line['sd']:.2f}"


def test_the_readme_quotes_the_initialisation(results: dict[str, Any]) -> None:
    means = results["by_start"]
    assert len(means) == 27
    assert (means["seeds"] == 3).all()
    objectives = ["translation_ranking", "pair_mse", "pair_mse_mcl"]
    for (source, share), lines in means.groupby(level=["source", "fraction"]):
        row = lines.droplevel(["source", "fraction"]).loc[objectives]
        scores = [
            f"{line[kind, 'mean']:.1f} ± {line[kind, 'sd']:.1f}"
            for kind in ("seen", "unseen")
            for _, line in row.iterrows()
        ]
        assert f"| `{source}` | {share:.0%} | {' | '.join(scores)} |".replace("%", " %") in README
    for effect, line in results["effects"].iterrows():
        assert f"| {' | '.join(f'{value:+.1f}' for value in line)} |" in README, effect
    for _, line in results["learning"].iterrows():
        assert " | ".join(f"{value:.1f}" for value in line) in README
