"""Which links a chain has and which settings decide each of them; free of torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from mlkd.config.schema import StageName, TrainConfig
from mlkd.data.sources import source_files
from mlkd.output.errors import UserError
from mlkd.storage.files import digest

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


def link_keys(config: TrainConfig) -> dict[StageName | None, str]:
    """For each link a hash of the settings that decide it, and one of the state of their files.

    Equal settings and files lead to the same run, and no file has to be read to know it, so that a
    sweep is counted before anything runs. A run folder is named after what they lead to instead
    (see :func:`mlkd.recipes.chain.identity`). Before the links, as None, what all of them share.

    Raises:
        UserError: The last stage itself is of no use.
    """
    files = digest(list(_file_states(config)), length=8)
    return {name: f"{_settings(config, name)}-{files}" for name in (None, *links(config))}


def _settings(config: TrainConfig, name: StageName | None) -> str:
    """Hash of the settings that decide a link."""
    parts: dict[str, Any] = {
        **config.model_dump(mode="json", include={"teacher", "assistant", "data", "optim"}),
        "eval": config.eval.model_dump(mode="json"),
        "trainer": config.trainer.model_dump(include={"precision", "validations"}),
    }
    if name is not None:
        upto = links(config)
        upto = upto[: upto.index(name) + 1]
        parts["stages"] = {n: config.stages[n].model_dump(exclude={"enabled"}) for n in upto}
    if name not in (None, "assistant"):
        parts |= {
            "student": config.student.model_dump(exclude_defaults=True),
            "init": config.init.deciding(),
            "seed": config.seed,
        }
    return digest(parts)


def _file_states(config: TrainConfig) -> Iterator[tuple[int, int]]:
    """Size and time of the last change of each file of pairs, evaluation sets and local encoders.

    Files that are not there (yet) are left out: whatever reads them says so.
    """
    for path in _files(config):
        with suppress(OSError):
            state = path.stat()
            yield state.st_size, state.st_mtime_ns


def _files(config: TrainConfig) -> Iterator[Path]:
    data = config.data
    for name, corpus in data.corpora.items():
        for target in corpus.targets if corpus.format != "demo" else ():
            with suppress(UserError):
                yield from source_files(name, corpus, target, data.root)
    for item in config.eval.sets.values():
        # Two asterisks in a row mean something else.
        place = re.sub(r"\*+", "*", re.sub(r"\{(lang|a|b|pair)\}", "*", item.path))
        path = Path(config.eval.root or "", place)
        if item.path:
            yield from sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    for encoder in (config.teacher, config.assistant.encoder):
        if encoder is not None and encoder.path is not None:
            folder = Path(encoder.path).expanduser()
            yield from sorted(path for path in folder.rglob("*") if path.is_file())
