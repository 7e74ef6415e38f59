"""``python -m mlkd.train``: run the chain up to a stage and print what came out.

With ``-m`` it is a sweep: many chains (see :mod:`mlkd.sweeps.driver`).
"""

from __future__ import annotations

import argparse

from mlkd.config.compose import run
from mlkd.config.schema import TrainConfig


def main(config: TrainConfig) -> float:
    """Run the chain; gives the selecting dev score of its last link, for sweepers."""
    from mlkd.recipes.chain import (
        run_chain,  # torch and friends, only once the configuration is valid
    )

    return run_chain(config)


def start() -> None:
    """Take the command line to the sweep's driver, or to Hydra."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-m", "--multirun", action="store_true")
    known, rest = parser.parse_known_args()
    if known.multirun and not any(word.startswith("-") for word in rest):
        from mlkd.sweeps.driver import main as sweep

        sweep(rest)
    else:
        run("train", TrainConfig, main)


if __name__ == "__main__":
    start()
