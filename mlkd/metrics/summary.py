"""The numbers by which models are compared, flat and by name."""

from __future__ import annotations

from typing import Any

from mlkd.metrics.scoring import HEADLINE

MEASURES = {
    "test_sts": "test STS (Spearman ×100)",
    "test_bitext": "test bitext (accuracy ×100)",
    "test_classification": "test classification (accuracy ×100)",
    "kept": "share of the assistant's test STS (%)",
    "dev_sts": "dev STS (Spearman ×100)",
    "dev_bitext": "dev bitext (accuracy ×100)",
    "dev_classification": "dev classification (accuracy ×100)",
    "mib": "size on disk (MiB)",
    "diff_mib": "size of the sparse difference (MiB)",
    "parameters": "stored parameters (M)",
    "latency_ms": "latency of one sentence (ms)",
    "sentences_per_s": "sentences a second",
}
"""Numbers of a cell, with what an axis says."""

COSTS = ("mib", "diff_mib", "parameters", "latency_ms")
"""Those of which less is better."""


def numbers(measured: dict[str, Any], share: float | None = None) -> dict[str, float]:
    """The numbers of ``MEASURES`` that a measured model has."""
    if not measured:
        return {}
    mean = measured["scores"]["mean"]
    latency = measured.get("latency_ms")
    found = {
        **{
            f"{split}_{kind}": mean[split].get(kind)
            for split in ("test", "dev")
            for kind in HEADLINE
        },
        "kept": share,
        "mib": measured["mib"],
        "diff_mib": measured.get("diff_mib"),
        "parameters": measured["parameters"]["total"] / 1e6,
        "latency_ms": latency["p50"] if isinstance(latency, dict) else latency,
        "sentences_per_s": measured.get("sentences_per_s"),
    }
    return {name: found[name] for name in MEASURES if found[name] is not None}


def pair_scores(measured: dict[str, Any]) -> dict[tuple[str, str, str], float]:
    """Headline score by (split, set, language pair), dev first."""
    sets = measured.get("scores", {}).get("sets", {})
    found = {
        (entry["split"], name, pair): values[HEADLINE[entry["kind"]]]
        for name, entry in sets.items()
        for pair, values in entry["pairs"].items()
    }
    return dict(sorted(found.items(), key=lambda item: item[0][0]))


def columns(measured: dict[str, Any]) -> dict[str, float]:
    """The same for a CSV file: ``split_set_pair``, and ``_low`` and ``_high`` of an interval."""
    found = {"_".join(key): score for key, score in pair_scores(measured).items()}
    for name, entry in measured.get("scores", {}).get("sets", {}).items():
        for pair, values in entry["pairs"].items():
            for end in ("low", "high"):
                if values.get(end) is not None:
                    found[f"{entry['split']}_{name}_{pair}_{end}"] = values[end]
    return found
