"""``python -m mlkd.pairs``: a look at the pairs before hours of training, without a teacher."""

from __future__ import annotations

from pathlib import Path

from mlkd.config.commands import PairsConfig
from mlkd.config.compose import run
from mlkd.output.errors import UserError


def main(config: PairsConfig) -> None:
    """Read and clean the pairs, print what was found, and write them where that is asked for.

    Raises:
        UserError: A corpus cannot be read, or a training would stop at it; that is shown first.
    """
    from rich.console import Console

    from mlkd.data.look import look_at
    from mlkd.data.look_table import to_table
    from mlkd.metrics.sets import load_sets, sentences

    look = look_at(
        config.data,
        Path(config.output_dir, "cache"),
        exclude=sentences(load_sets(config.eval)) if config.eval else (),
        show=config.show,
        output=Path(config.output) if config.output else None,
        allow_download=config.allow_download,
    )
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
