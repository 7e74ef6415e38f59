"""``python -m mlkd.evaluate model=<folder>``: score any sentence encoder."""

from __future__ import annotations

import sys

from rich.console import Console

from mlkd import api
from mlkd.config.commands import EvaluateConfig
from mlkd.config.compose import run
from mlkd.metrics.scoring import select_value
from mlkd.metrics.table import kinds_to_table, print_table, row_of, sides_to_table


def main(config: EvaluateConfig) -> float | None:
    """Print the table, write the JSON, give the selecting dev score where there is one."""
    judged = api.evaluate(config)

    from mlkd.deploy.race import speed_table

    content = judged.content
    if names := content["not_kept_out"]:
        print(
            f"warning: {', '.join(names)}: not kept out of the training pairs of this run; "
            "whatever of it was among them makes its scores too good",
            file=sys.stderr,
        )
    if names := content["not_scored"]:
        print(
            f"warning: {', '.join(names)}: not scored, a classification needs a head with its "
            "labels; head=<folder> gives one",
            file=sys.stderr,
        )
    print_table([row_of(judged.name, content)])
    if "race" in content:
        Console(width=140).print(speed_table(content["race"]))
    if "vectors" in content:
        Console(width=120).print(kinds_to_table(content["vectors"]))
    if "documents" in content:
        Console(width=120).print(sides_to_table(content["documents"]))
    print(f"scores: {judged.file}")
    dev = any(entry["split"] == "dev" for entry in judged.scores["sets"].values())
    return select_value(judged.scores) if dev else None


if __name__ == "__main__":
    run("evaluate", EvaluateConfig, main)
