"""``python -m mlkd.train``: run the chain up to a stage and print what came out.

With ``-m`` it is a sweep: many chains (see :mod:`mlkd.sweeps.driver`).
"""

from __future__ import annotations

import argparse
import sys

from hydra.core.hydra_config import HydraConfig

from mlkd import api
from mlkd.config.compose import reporting, run
from mlkd.config.schema import TrainConfig
from mlkd.machine.processes import together
from mlkd.metrics.table import print_table
from mlkd.output.errors import UserError
from mlkd.output.started import is_first_here, started_processes
from mlkd.recipes.early import check_early, refuse_unread

_HELP = {"-h", "--help", "--hydra-help", "--version"}
"""Options of Hydra that show something else than a configuration."""


def main(config: TrainConfig) -> float:
    """Train and say where the student is; gives the dev score that selects, for sweepers."""
    command = HydraConfig.get()
    if (launcher := command.runtime.choices["hydra/launcher"]) != "basic":
        raise UserError(f"hydra/launcher={launcher} starts the cells of a sweep; give -m")
    refuse_unread(config, command.overrides.task)
    if config.trainer.processes > 1:
        check_early(config)  # before others are started
    with together(config.trainer, ["-m", "mlkd.train", *sys.argv[1:]]):
        result = api.train(config, show=print_table)
    if is_first_here():
        print(f"student: {result.student}")
    return result.score


def start() -> None:
    """Take the command line to the sweep's driver, or to Hydra."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-m", "--multirun", action="store_true")
    known, rest = parser.parse_known_args()
    options = [word for word in rest if word.startswith("-")]
    if known.multirun and not _HELP.intersection(options):
        with reporting(TrainConfig):
            if options:
                raise UserError(
                    f"-m plans a sweep and takes no option beside it; leave out {options[0]}, or "
                    "-m for a look at one chain"
                )
            if started_processes() > 1:
                raise UserError(
                    "-m starts the processes of a sweep itself, without torchrun or srun"
                )
            from mlkd.sweeps.driver import main as sweep

            sweep(rest)
        return
    run("train", TrainConfig, main)


if __name__ == "__main__":
    start()
