"""What is refused before torch is imported: a second instead of ten."""

from __future__ import annotations

from collections.abc import Iterable

from mlkd.config.schema import TrainConfig
from mlkd.data.labelled import labelled_files
from mlkd.data.sources import source_files
from mlkd.metrics.sets import load_sets
from mlkd.output.errors import UserError
from mlkd.recipes.recipe import New, links


def check_early(config: TrainConfig, keys: Iterable[str]) -> None:
    """Look at what needs no model: links, settings that nothing reads, files.

    Args:
        config: The chain.
        keys: What the command line sets.

    Raises:
        UserError: A link has nothing to do, a setting is not read, or a file is missing.
    """
    wanted, keys = links(config), list(keys)
    refuse_unread(config, keys)
    refuse_beside_budget(config, keys)
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


def refuse_beside_budget(config: TrainConfig, keys: Iterable[str]) -> None:
    """Refuse settings that the search takes the place of.

    Args:
        config: The chain.
        keys: What the command line sets.

    Raises:
        UserError: One of them would not be read, or the search is not possible.
    """
    if config.budget_mib is None:
        return
    for key in keys:
        name = key.lstrip("+~")
        if name == "student" or name.startswith("student.") or name == "init.embedding":
            raise UserError(f"{name}: not read, budget_mib chooses it")
    if config.init.source == "scratch":
        raise UserError("budget_mib: compares starts; init.source=scratch has none to compare")
    if config.trainer.processes > 1:
        raise UserError("budget_mib: searches in one process; give several the student it finds")
    if not any(isinstance(link.inputs["start"], New) for link in links(config)):
        raise UserError(f"budget_mib: not read, stage={config.stage} trains no student")
