"""What is refused before torch is imported: a second instead of ten."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mlkd.config.schema import TrainConfig
from mlkd.config.section import Decides, is_below, undecided
from mlkd.config.stages import StageSettings
from mlkd.config.stages.base import LabelledSettings
from mlkd.data.labelled import labelled_files
from mlkd.data.sources import asked_languages, source_files
from mlkd.metrics.sets import load_sets
from mlkd.output.errors import UserError
from mlkd.recipes.recipe import Link, links

log = logging.getLogger(__name__)

_OF_MIXED, _OF_LABELLED, _OF_DOMAINS = (
    undecided(TrainConfig, {*Decides} - {mark})
    for mark in (Decides.MIXING, Decides.LABELS, Decides.DOMAINS)
)
"""Keys of settings that only links with mixed batches read, of labelled text, or with domains."""


def check_early(config: TrainConfig) -> None:
    """Look at what needs no model: links and files.

    Raises:
        UserError: A link has nothing to do, a search is not possible, or a file is missing.
    """
    refuse_beside_budget(config, ())
    data = config.data
    for link in links(config):
        for name, text in link.labelled.items():
            labelled_files(name, text, data.root)
        refuse_domains(config, link)
    asked = asked_languages(data)
    for name, corpus in data.corpora.items():
        for target in corpus.targets:
            if not config.allow_download and target in asked:
                source_files(name, corpus, target, data.root)
    load_sets(config.eval)


def refuse_domains(config: TrainConfig, link: Link, read: Sequence[str] | None = None) -> None:
    """Refuse a domain of an evaluation set that no labelled text is of, where they are known.

    Args:
        config: The chain.
        link: What hands over a head a domain, if its stage does so.
        read: Domains of the text that the link trains on, once it is read: columns say them.

    Raises:
        UserError: There is no such domain.
    """
    corpora, by_domain = config.data.labelled, link.settings.reads_domains
    columns = {name for name, text in corpora.items() if text.domain_column is not None}
    unknown = columns and (read is None or not columns <= link.labelled.keys())
    if not (link.settings.head_a_domain and by_domain) or unknown:
        return
    known = dict.fromkeys([*(text.label for text in corpora.values()), *(read or ())])
    for name, item in config.eval.sets.items():
        if item.domain is not None and item.domain not in known:
            raise UserError(
                f"eval.sets.{name}.domain={item.domain}: no labelled text is of this domain; "
                f"allowed: {', '.join(known)}, or null"
            )


def refuse_unread(config: TrainConfig, words: Iterable[str]) -> None:
    """Look for settings of links that nothing reads; those of links that are left out are named.

    Whoever ends a chain early, or leaves a link out of a comparison, may keep the rest of the line.

    Args:
        config: The chain.
        words: What the command line sets, as in ``<key>=<value>``; keys will do.

    Raises:
        UserError: A setting would not be read by the link that has it, whatever the chain.
    """
    words = list(words)
    refuse_beside_budget(config, words)
    for setting in _unread(config, words):
        setting.tell()


def refuse_unread_by_all(configs: Iterable[TrainConfig], words: Iterable[str]) -> None:
    """The same for the cells of a sweep: it is enough if one of them reads a setting.

    Args:
        configs: The chains of the cells; further ones are asked for while something is unread.
        words: What is set for all of them.

    Raises:
        UserError: No cell would read a setting.
    """
    several = iter(configs)
    if (first := next(several, None)) is None:
        return
    found = {word: next(_unread(first, [word]), None) for word in words}
    unread = {word: setting for word, setting in found.items() if setting is not None}
    while unread and (config := next(several, None)) is not None:
        unread = {word: x for word, x in unread.items() if any(_unread(config, [word]))}
    for setting in unread.values():
        setting.tell()


@dataclass(frozen=True)
class _Unread:
    """A setting that a chain does not read."""

    key: str
    reason: str
    refused: bool

    def tell(self) -> None:
        says = f"{self.key}: not read, {self.reason}"
        if self.refused:
            raise UserError(says)
        log.warning(says)


def _unread(config: TrainConfig, words: Iterable[str]) -> Iterator[_Unread]:
    """Settings that a chain does not read, of its links and of all of them."""
    found = [word.partition("=")[::2] for word in words]
    chain = {link.name: link for link in links(config)} if found else {}
    yield from _unread_by_all(config, chain.values(), [key for key, _ in found])
    of_links = [
        (key, value, place) for key, value in found if (place := _of_link(key, config)) is not None
    ]
    for key, value, (name, setting) in of_links:
        settings = config.stages[name]
        if reason := settings.useless(config.student):
            yield _Unread(key, f"the link {name} needs {reason}", refused=True)
        elif config.init.source not in ("teacher", "scratch") and _names_source(
            key, value, settings
        ):
            reason = f"init.source={config.init.source} says what the student copies"
            yield _Unread(f"stages.{name}.inputs.source", reason, refused=True)
        elif name not in chain:
            if setting not in {"enabled", "inputs"}:
                yield _Unread(key, f"the link {name} is not in this chain", refused=False)
        elif (role := key.rpartition(".inputs.")[2]) in settings.optional_roles and (
            settings.inputs.get(role) != chain[name].settings.inputs.get(role)
        ):
            reason = f"{settings.inputs[role]} is not handed over for such labels"
            yield _Unread(key, reason, refused=True)
        else:
            passes = config.student.recurrence if chain[name].trains_student else 1
            if reason := settings.unread(passes).get(setting):
                yield _Unread(key, reason, refused=True)


def _unread_by_all(
    config: TrainConfig, chain: Collection[Link], keys: Iterable[str]
) -> Iterator[_Unread]:
    """Settings of all links that none of a chain reads."""
    mixed = any(link.settings.grouping is None for link in chain)
    labelled = any(link.labelled for link in chain)
    student = any(link.trains_student for link in chain)
    whole = [settings for settings in config.stages.values() if settings.enabled]
    for key in keys:
        name = key.lstrip("+~")
        if name.split(".")[0] in ("student", "init") and not student:
            yield _Unread(key, f"stage={config.stage} trains no student", refused=False)
        elif is_below(name, _OF_MIXED) and not mixed:
            refused = all(settings.grouping is not None for settings in whole)
            yield _Unread(key, "no link of the chain has mixed batches", refused)
        elif is_below(name, _OF_LABELLED) and not labelled:
            refused = not any(isinstance(settings, LabelledSettings) for settings in whole)
            yield _Unread(key, "no link of the chain trains on labelled text", refused)
        elif is_below(name, _OF_DOMAINS) and not any(x.settings.reads_domains for x in chain):
            refused = not any(settings.reads_domains for settings in whole)
            yield _Unread(key, "no link of the chain reads domains", refused)
        elif name.startswith("optim.") and not _common(config, name, [x.settings for x in chain]):
            refused = not _common(config, name, whole)
            yield _Unread(key, "each link of the chain has its own", refused)
        elif name.startswith("assistant.vocabulary") and config.assistant.vocabulary is None:
            yield _Unread(key, "a ready assistant has a vocabulary of its own", refused=True)
        elif name == "data.root" and not _reads_root(config):
            yield _Unread(key, "all text is embedded", refused=True)
        elif name == "eval.root" and not config.eval.reads_files:
            yield _Unread(key, "all sets are embedded", refused=True)
        elif name == "assistant.seed" and all(link.settings.seed is None for link in chain):
            refused = all(settings.seed is None for settings in whole)
            yield _Unread(key, "no link of the chain has a seed of its own", refused)


def _common(config: TrainConfig, key: str, links: Iterable[StageSettings]) -> bool:
    """Whether a link has the optimiser's setting of the chain."""
    name = key.split(".")[1]
    return any(getattr(x.optim, name) == getattr(config.optim, name) for x in links)


def _reads_root(config: TrainConfig) -> bool:
    """Whether text is read from ``data.root``, or a path of another section was made with it."""
    others = config.model_dump(mode="json", exclude={"data": {"root"}, "output_dir": True})
    return config.data.reads_files or str(config.data.root) in json.dumps(others)


def _of_link(key: str, config: TrainConfig) -> tuple[str, str] | None:
    """Link and setting that a key of the command line is about; None for other keys."""
    place = key.lstrip("+~").rpartition("@")[2].split(".")  # an option goes to what follows the @
    is_one = len(place) > 2 and place[0] == "stages" and place[1] in config.stages
    return (place[1], place[2]) if is_one else None


def _names_source(key: str, value: str, settings: StageSettings) -> bool:
    """Whether a word sets the input ``source`` of a link."""
    given = key.endswith(".inputs.source") or (key.endswith(".inputs") and "source" in value)
    return given and "source" in settings.inputs


def refuse_beside_budget(config: TrainConfig, words: Iterable[str]) -> None:
    """Refuse settings that the search takes the place of.

    Args:
        config: The chain.
        words: What the command line sets, as in ``<key>=<value>``; keys will do.

    Raises:
        UserError: One of them would not be read, or the search is not possible.
    """
    if config.budget_mib is None:
        return
    for word in words:
        name = word.split("=")[0].lstrip("+~")
        if name == "student" or name.startswith("student.") or name == "init.embedding":
            raise UserError(f"{name}: not read, budget_mib chooses it")
    for key in ("source", "embedding"):
        if (given := getattr(config.init, key)) in ("scratch", "random"):
            raise UserError(f"budget_mib: compares starts; init.{key}={given} has none to compare")
    if config.trainer.processes > 1:
        raise UserError("budget_mib: searches in one process; give several the student it finds")
    if not any(link.trains_student for link in links(config)):
        raise UserError(f"budget_mib: not read, stage={config.stage} trains no student")
