"""``python -m mlkd.train``: run the chain up to a stage and print what came out."""

from __future__ import annotations

from mlkd.config import run
from mlkd.schema import TrainConfig


def main(config: TrainConfig) -> float:
    """Run the chain; gives the selecting dev score of its last link, for sweepers."""
    from mlkd.chain import run_chain  # torch and friends, only once the configuration is valid

    return run_chain(config)


if __name__ == "__main__":
    run("train", TrainConfig, main)
