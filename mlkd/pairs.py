"""``python -m mlkd.pairs``: a look at the pairs before hours of training, without a teacher."""

from __future__ import annotations

from rich.console import Console

from mlkd import api
from mlkd.config.commands import PairsConfig
from mlkd.config.compose import run
from mlkd.data.look_table import to_table
from mlkd.output.errors import UserError


def main(config: PairsConfig) -> None:
    """Look at the pairs and print what was found.

    Raises:
        UserError: A training would stop at them; that is shown first.
    """
    look = api.pairs(config)
    Console(width=200).print(to_table(look))
    for pair in look.sample:
        print(f"{pair.corpus} {pair.source_lang}-{pair.target_lang}: {pair.source} | {pair.target}")
    for line in look.warnings:
        print(f"look at {line}")
    if config.output:
        print(f"pairs: {config.output}")
    if look.stops:
        raise UserError(f"a training would stop here: {look.stops}")


if __name__ == "__main__":
    run("pairs", PairsConfig, main)
