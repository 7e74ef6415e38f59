"""Which links a chain has and which settings decide each of them; free of torch."""

from __future__ import annotations

from typing import Any, get_args

from mlkd.errors import UserError
from mlkd.files import digest
from mlkd.schema import StageName, TrainConfig

ORDER: tuple[StageName, ...] = get_args(StageName)
"""The stages in the order of the chain."""


def links(config: TrainConfig) -> list[StageName]:
    """Stages to run, in order: enabled, and of use for this student and assistant.

    Raises:
        UserError: The last stage itself is of no use.
    """
    useless = {}
    if config.student.bottleneck is None:
        useless["bottleneck"] = "a student.bottleneck"
    if not config.assistant.train:
        useless["assistant"] = "assistant.train=true"
    if config.stage in useless:
        raise UserError(f"stage={config.stage} has nothing to do: it needs {useless[config.stage]}")
    upto = ORDER[: ORDER.index(config.stage) + 1]
    return [n for n in upto if config.stages[n].enabled and n not in useless]


def link_key(config: TrainConfig, name: StageName | None) -> str:
    """Hash of the settings that decide a link; None = those that all links of a chain share.

    Equal settings lead to the same run, and no file has to be read to know it, so that a sweep is
    counted before anything runs. A run folder is named after what the settings lead to instead
    (see :func:`mlkd.chain.identity`).
    """
    parts: dict[str, Any] = {
        **config.model_dump(mode="json", include={"teacher", "assistant", "data", "optim"}),
        "eval": config.eval.model_dump(mode="json", include={"root", "sets"}),
        "trainer": config.trainer.model_dump(include={"precision", "validations"}),
    }
    if config.eval.precision != "fp32":
        parts["eval"]["precision"] = config.eval.precision
    if name is not None:
        upto = links(config)
        upto = upto[: upto.index(name) + 1]
        parts["stages"] = {n: config.stages[n].model_dump(exclude={"enabled"}) for n in upto}
    if name not in (None, "assistant"):
        parts |= {
            "student": config.student.model_dump(exclude_defaults=True),
            "init": config.init.model_dump(),
            "seed": config.seed,
        }
    return digest(parts)
