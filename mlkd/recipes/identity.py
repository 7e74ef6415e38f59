"""What decides the result of a link: one function, and two ways to look at what it starts from.

Before anything is read, encoders and pairs count by their settings: equal settings lead to the same
run, so that a sweep is counted before anything runs. Once they are there they count by their
content, which names the run folder.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from mlkd.config.backbone import source_folder
from mlkd.config.paths import user_path
from mlkd.config.schema import TrainConfig
from mlkd.config.section import Decides
from mlkd.data.labelled import labelled_files
from mlkd.data.shares import decides
from mlkd.data.sources import source_files
from mlkd.output.errors import UserError
from mlkd.recipes.recipe import Given, Input, Link, Made, links
from mlkd.storage.files import digest

_FORMAT = 2


class Resolver(Protocol):
    """How what a link starts from enters its identity; JSON-able."""

    def given(self, encoder: Given) -> Any:
        """An encoder that is there before the first link."""

    def made(self, output: Made) -> Any:
        """An output of an earlier link."""

    def pairs(self, link: Link) -> Any:
        """The pairs that a link trains on, or its labelled text."""


def identity(config: TrainConfig, link: Link, resolver: Resolver) -> dict[str, Any]:
    """Everything that decides the result of a link, and nothing else."""

    def resolved(source: Input) -> Any:
        if isinstance(source, Given):
            return resolver.given(source)
        if isinstance(source, Made):
            return resolver.made(source)
        init = config.init.deciding()
        if config.init.folder is not None:
            init["source"] = "folder"  # wherever it is
        return {
            "student": config.student.deciding(),
            "init": init,
            "source": resolved(source.source),
            "seed": config.seed,
        }

    return {
        "format": _FORMAT,
        "link": link.settings.deciding(),
        "seed": link.seed,
        "inputs": {role: resolved(source) for role, source in link.inputs.items()},
        "pairs": resolver.pairs(link),
        "data": config.data.deciding({Decides.MIXING} if link.settings.grouping is None else ()),
        "trainer": config.trainer.deciding(),
        **decides(link.settings.fraction),
    }


class BySettings:
    """Encoders and pairs are what the configuration says of them."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._links = {link.name: link for link in links(config)}

    def given(self, encoder: Given) -> Any:
        """Settings of the teacher; for the assistant, made from it and pairs, those of both."""
        teacher = _placed(self._config.teacher.deciding(), "path")
        if encoder.name == "teacher":
            return teacher
        if encoder.name == "source":
            return self._source
        assistant = self._config.assistant.deciding()
        if assistant["encoder"] is not None:
            assistant["encoder"] = _placed(assistant["encoder"], "path")
        return {"teacher": teacher, "assistant": assistant}

    @cached_property
    def _source(self) -> list[Any]:
        """The folder that the student copies, and the state of its files."""
        folder = source_folder(self._config.init)
        assert folder is not None
        return [str(folder.resolve()), *_states(_within(folder))]

    def made(self, output: Made) -> Any:
        """What decides the link, again by settings."""
        return [identity(self._config, self._links[output.link], self), output.output]

    def pairs(self, link: Link) -> Any:
        """Corpora, cleaning and splits."""
        also = {Decides.PAIRS}
        if link.settings.reads_domains:
            also |= {Decides.DOMAINS}
        pairs = _placed(self._config.data.deciding(also), "root")
        if not link.labelled:
            return pairs
        labelled = {name: corpus.deciding(also) for name, corpus in link.labelled.items()}
        return pairs | {"labelled": labelled}


def link_keys(config: TrainConfig) -> dict[str | None, str]:
    """For each link a hash of the settings that decide it, and one of the state of their files.

    Before the links, as None, what all of them share. Settings of the evaluation count: a run whose
    scores were made with others is scored again.

    Raises:
        UserError: The last link has nothing to do.
    """
    files, by_settings = digest(list(_states(_files(config))), length=8), BySettings(config)
    scores = _placed(config.eval.deciding({Decides.SCORES}), "root")
    pairs = _placed(config.data.deciding({Decides.PAIRS}), "root")
    common = [by_settings.given(Given("base")), pairs, config.trainer.deciding()]
    common.append(config.assistant.seed)  # or cells would share the data and nothing else
    wholes: dict[str | None, Any] = {None: common}
    wholes |= {link.name: identity(config, link, by_settings) for link in links(config)}
    return {name: f"{digest([whole, scores])}-{files}" for name, whole in wholes.items()}


def _placed(settings: dict[str, Any], key: str) -> dict[str, Any]:
    """Settings in which a folder is the same, however it is written."""
    if settings[key] is None:
        return settings
    return settings | {key: str(user_path(settings[key]).resolve())}


def _states(files: Iterable[Path]) -> Iterator[tuple[int, int]]:
    """Size and time of the last change of files.

    Those that are not there (yet) are left out: whatever reads them says so.
    """
    for path in files:
        with suppress(OSError):
            state = path.stat()
            yield state.st_size, state.st_mtime_ns


def _within(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _files(config: TrainConfig) -> Iterator[Path]:
    """Files of pairs, evaluation sets, and the local encoders that all links may depend on."""
    data = config.data
    for name, corpus in data.corpora.items():
        for target in corpus.targets if corpus.format != "demo" else ():
            with suppress(UserError):
                yield from source_files(name, corpus, target, data.root)
    for name, text in data.labelled.items():
        with suppress(UserError):
            yield from labelled_files(name, text, data.root).values()
    for item in config.eval.sets.values():
        parts = re.split(r"\{(?:lang|a|b|pair)\}", item.path)
        pattern = re.sub(r"\*+", "*", "*".join(map(glob.escape, parts)))
        root = glob.escape(config.eval.root or "")
        if item.path:
            yield from map(Path, sorted(glob.glob(os.path.join(root, pattern))))  # noqa: PTH118, PTH207
    for encoder in (config.teacher, config.assistant.encoder):
        if encoder is not None and encoder.path is not None:
            yield from _within(user_path(encoder.path))
