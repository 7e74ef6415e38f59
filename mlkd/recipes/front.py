"""Students of several sizes: the largest is trained at length, each further one is cut from it.

A student that was cut from a trained one starts nearer than one that was cut from the assistant
(Mirzadeh et al., 2020; gradually in CoFi, Xia et al., 2022), and is trained for less.
"""

from __future__ import annotations

import math

from mlkd.config.schema import TrainConfig
from mlkd.recipes.budget import within_budget
from mlkd.recipes.recipe import links
from mlkd.recipes.result import Result, Show
from mlkd.recipes.run import run_chain


def run_front(config: TrainConfig, show: Show | None = None) -> Result:
    """Find and train a student for each size of ``budget_mib``.

    Args:
        config: The chain of the largest one.
        show: Told the results of each chain.

    Returns:
        The smallest one, with the runs of all.

    Raises:
        UserError: No student is so small, or there is nothing that it could start from.
    """
    largest, *others = sorted(set(config.budget_mib or []), reverse=True)
    result = run_chain(within_budget(config, largest), show=show)
    for size in others:
        cut = config.init.model_copy(update={"source": str(result.student)})
        chosen = within_budget(config.model_copy(update={"init": cut}), size)
        smaller = run_chain(_shorter(chosen), show=show)
        result = smaller._replace(runs=result.runs + smaller.runs)
    return result


def _shorter(config: TrainConfig) -> TrainConfig:
    """The chain with less training of its student."""
    stages = dict(config.stages)
    for link in links(config):
        if link.trains_student:
            steps = link.settings.max_steps
            less = None if steps is None else math.ceil(steps * config.budget_share)
            epochs = link.settings.epochs * config.budget_share
            update = {"epochs": epochs, "max_steps": less}
            stages[link.name] = link.settings.model_copy(update=update)
    return config.model_copy(update={"stages": stages})
