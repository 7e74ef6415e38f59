"""The links of a chain and where their inputs come from; free of torch.

A recipe is data: ``stages`` of the configuration, an ordered mapping of links with named inputs.
Here names become what they stand for, and the links that nothing needs are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from mlkd.config.labelled import LabelledConfig
from mlkd.config.schema import TrainConfig
from mlkd.config.stages import StageSettings
from mlkd.output.errors import UserError

STUDENT = "student"
"""The output that every link has: the encoder that it trained."""
HEAD = "head"
"""The output of links that classify: a head for the vectors of their student."""
DIFF = "diff"
"""The output of sparse links: what they changed of the encoder that they started from."""
REFERENCES = ("teacher", "assistant")
"""Encoders with which a chain's results are compared. Where no link is called so, or where it is
left out, the assistant is ``base``."""


@dataclass(frozen=True)
class Given:
    """An encoder that is there before the first link."""

    name: Literal["teacher", "base", "source"]
    """The teacher, the assistant before stage 1, or the folder ``init.source``."""


@dataclass(frozen=True)
class Made:
    """An output of a link."""

    link: str
    output: str = STUDENT


@dataclass(frozen=True)
class New:
    """A student that has not been trained yet."""

    source: Given | Made
    """The encoder whose weights and vocabulary it copies."""


Input = Given | Made | New


@dataclass(frozen=True)
class Link:
    """One training of a chain."""

    name: str
    settings: StageSettings
    inputs: Mapping[str, Input]
    """Where each of the stage's roles comes from."""
    seed: int
    trains_student: bool
    """Whether what it trains was a new student once, and not the assistant."""
    starts_random: bool
    """Whether its encoder has random layers that no link has trained."""
    labelled: Mapping[str, LabelledConfig] = field(default_factory=dict)
    """The labelled text that it trains on; empty: it trains on pairs."""


def links(config: TrainConfig) -> list[Link]:
    """The links that lead to ``config.stage``, and to what results are compared with, in order.

    Raises:
        UserError: The last link has nothing to do, or an input of a link does not exist.
    """
    recipe = _Recipe(config)
    last = config.stage
    if taken := {"teacher", "base", STUDENT} & config.stages.keys():
        raise UserError(f"stages.{min(taken)}: no name for a link, it means an input")
    if last not in config.stages:
        allowed = ", ".join(config.stages)
        raise UserError(
            f"stage={last}: no link of the recipe {config.recipe}; its links: {allowed}"
        )
    if reason := recipe.left_out(last):
        raise UserError(f"stage={last} has nothing to do: it needs {reason}")
    needed = {last}
    for name in REFERENCES:
        needed |= _names(recipe.find(name))
    known = {}
    for name in reversed(config.stages):
        if name in needed:
            known[name] = link = recipe.link(name)
            for source in link.inputs.values():
                needed |= _names(source)
    return [known[name] for name in config.stages if name in known]


def references(config: TrainConfig) -> dict[str, Given | Made]:
    """The encoders with which results are compared."""
    recipe = _Recipe(config)
    return {name: recipe.find(name) for name in REFERENCES}


def _names(source: Input) -> set[str]:
    """The link whose output something is."""
    if isinstance(source, New):
        return _names(source.source)
    return {source.link} if isinstance(source, Made) else set()


class _Recipe:
    """Looks names of inputs up."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._order = list(config.stages)

    def left_out(self, name: str) -> str | None:
        """What a link lacks to be run, in words."""
        settings = self._config.stages[name]
        if not settings.enabled:
            return f"stages.{name}.enabled=true"
        return settings.useless(self._config.student)

    def link(self, name: str) -> Link:
        """A link that is run, with its inputs."""
        settings = self._settings(name)
        inputs = {role: self._input(name, role) for role in self._roles(name)}
        for role in sorted(settings.trained_roles):
            if inputs[role] == inputs["start"]:
                raise UserError(
                    f"stages.{name}.inputs.{role}={settings.inputs[role]}: give an enabled link "
                    "that trains the input start further"
                )
        if settings.needs_start and isinstance(inputs["start"], New):
            raise UserError(
                f"stages.{name}.inputs.start: a new student is not kept, and stage "
                f"{settings.stage} needs it later; start from a link that trains it"
            )
        path = list(self._path(name))
        seed = self._config.seed if settings.seed is None else settings.seed
        random = self._config.init.source == "scratch" and isinstance(path[-1], New)
        trained = any(
            self._config.stages[start.link].whole for start in path if isinstance(start, Made)
        )
        try:
            labelled = settings.labelled_of(self._config.data.labelled)
        except ValueError as error:
            raise UserError(f"stages.{name}: {error}") from None
        trains_student = isinstance(path[-1], New)
        random = random and not trained
        return Link(name, settings, inputs, seed, trains_student, random, labelled)

    def _roles(self, name: str) -> list[str]:
        """The inputs of a link, if they are those that its stage reads."""
        settings = self._settings(name)
        missing = settings.roles - settings.inputs.keys()
        of_new = {"source"} if settings.inputs.get("start") == STUDENT else set()
        unread = settings.inputs.keys() - settings.roles - settings.optional_roles - of_new
        if missing or unread:
            roles = ", ".join(sorted(settings.roles | settings.optional_roles))
            raise UserError(
                f"stages.{name}.inputs: {', '.join(sorted(missing | unread))}: the stage "
                f"{settings.stage} reads: {roles}"
            )
        return sorted(settings.inputs.keys() - of_new)

    def _settings(self, name: str) -> StageSettings:
        """A link's settings, without optional inputs that are not handed over."""
        settings = self._config.stages[name]
        kept = {
            role: reference
            for role, reference in settings.inputs.items()
            if role not in settings.optional_roles or self._is_handed_over(reference)
        }
        if len(kept) == len(settings.inputs):
            return settings
        return settings.model_copy(update={"inputs": kept})

    def _is_handed_over(self, reference: str) -> bool:
        """Whether the link that an input names has such an output, or never has."""
        name, _, output = reference.partition(".")
        other = self._config.stages.get(name)
        if other is None or output not in other.outputs:
            return True
        with suppress(ValueError):  # which is said of that link
            return output in other.handed_over(self._config.data.labelled)
        return True

    def find(self, reference: str, before: int | None = None, *, new: bool = False) -> Given | Made:
        """What a name means for a link, or for the whole chain.

        Args:
            reference: The name.
            before: The place of the link; None = after all.
            new: Whether a new student could have been named, for the message.

        Raises:
            UserError: There is no such thing, or no such link before this one.
        """
        name, dot, output = reference.partition(".")
        earlier = self._order[:before]
        if name in earlier:
            known = self._config.stages[name].outputs
            if dot and output not in known:
                allowed = ", ".join(sorted(known))
                raise UserError(f"{reference}: the outputs of the link {name} are: {allowed}")
            if self.left_out(name) is None:
                return Made(name, output or STUDENT)
            if output in ("", STUDENT):
                start = self._input(name, "start")
                if not isinstance(start, New):
                    return start
            raise UserError(f"the input {reference} needs {self.left_out(name)}")
        if reference == "teacher":
            return Given("teacher")
        if reference in ("base", "assistant"):
            return Given("base")
        allowed = ", ".join(["teacher", "base", *([STUDENT] if new else []), *earlier])
        raise UserError(f"no input is called {reference}; allowed: {allowed}")

    def _input(self, name: str, role: str) -> Input:
        """An input of a link."""
        self._roles(name)  # also of a link that is passed over
        place = self._order.index(name)
        reference = self._config.stages[name].inputs[role]
        if reference == STUDENT and role == "start":
            return self._new(name)
        passed = reference.removesuffix(f".{STUDENT}")
        is_start = role == "start" and passed in self._order[:place]
        if is_start and self.left_out(passed) is not None:
            return self._input(passed, "start")
        try:
            return self.find(reference, place, new=role == "start")
        except UserError as error:
            raise UserError(f"stages.{name}.inputs.{role}: {error}") from None

    def _new(self, name: str) -> New:
        """A new student, copied from what its link says."""
        if self._config.init.source == "base":
            return New(Given("base"))
        if self._config.init.folder is not None:
            return New(Given("source"))
        source = self._config.stages[name].inputs.get("source", "assistant")
        try:
            return New(self.find(source, self._order.index(name)))
        except UserError as error:
            raise UserError(f"stages.{name}.inputs.source: {error}") from None

    def _path(self, name: str) -> Iterator[Input]:
        """What a link starts from, what that started from, and so on."""
        start = self._input(name, "start")
        yield start
        if isinstance(start, Made):
            yield from self._path(start.link)
