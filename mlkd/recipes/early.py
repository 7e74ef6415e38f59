"""What is refused before torch is imported: a second instead of ten."""

from __future__ import annotations

from collections.abc import Iterable

from mlkd.config.schema import TrainConfig
from mlkd.data.labelled import labelled_files
from mlkd.data.sources import source_files
from mlkd.metrics.sets import load_sets
from mlkd.output.errors import UserError
from mlkd.recipes.recipe import links


def check_early(config: TrainConfig, keys: Iterable[str]) -> None:
    """Look at what needs no model: links, settings that nothing reads, files.

    Args:
        config: The chain.
        keys: What the command line sets.

    Raises:
        UserError: A link has nothing to do, a setting is not read, or a file is missing.
    """
    wanted = links(config)
    refuse_unread(config, keys)
    data = config.data
    for link in wanted:
        for name, text in link.labelled.items():
            labelled_files(name, text, data.root)
    for name, corpus in data.corpora.items():
        for target in corpus.targets:
            if not config.allow_download and target in (data.languages or corpus.targets):
                source_files(name, corpus, target, data.root)
    load_sets(config.eval)


def refuse_unread(config: TrainConfig, keys: Iterable[str]) -> None:
    """Refuse settings of a link that has nothing to do for this student.

    Args:
        config: The chain.
        keys: What the command line sets.

    Raises:
        UserError: One of them would not be read.
    """
    for key in keys:
        parts = key.lstrip("+~").split(".")
        settings = config.stages.get(parts[1]) if parts[0] == "stages" and len(parts) > 2 else None
        if settings is not None and (reason := settings.useless(config.student)):
            raise UserError(f"{key}: not read, the link {parts[1]} needs {reason}")
