"""``python -m mlkd.mine a.txt b.txt``: the best translation of each line of a text in another."""

from __future__ import annotations

import sys

from mlkd import api
from mlkd.config.commands import MineConfig
from mlkd.config.compose import run
from mlkd.config.quoting import bare_words, listed


def main(config: MineConfig) -> None:
    """Write the pairs, print what was read and found."""
    mined = api.mine(config)
    for name, side in zip(config.texts, mined.sides, strict=True):
        print(
            f"{name}: {side.lines} lines, {len(side.texts)} compared; left out: {side.empty} empty,"
            f" {side.duplicates} duplicates, {side.unreadable} unreadable"
        )
    below = len(mined.sides[0].texts) - mined.pairs
    print(f"{mined.pairs} pairs, {below} below the threshold: {config.output}")


def as_overrides(words: list[str]) -> list[str]:
    """The command line in Hydra's grammar: the two files stand without a key."""
    files, rest = bare_words(words)
    return [*rest, listed("texts", files)] if files else rest


if __name__ == "__main__":
    sys.argv[1:] = as_overrides(sys.argv[1:])
    run("mine", MineConfig, main)
