"""What the settings of all stages share: inputs, budget, optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from mlkd.config.labelled import LabelledConfig, Task, task_of
from mlkd.config.section import Decides, Positive, Section, Seed, Several
from mlkd.config.student import StudentConfig
from mlkd.config.training import OptimConfig

KNOWN: dict[str, type[StageSettings]] = {}
"""Settings of each stage by its name; a class enters itself when it is defined."""


class GroupingConfig(Section):
    """Batches by a label of the pairs, all of whose values count alike."""

    by: Literal["language", "domain"]
    """Language of the translation, or domain as the corpora say (``domain``, ``domain_column``)."""
    mode: Literal["one", "all"]
    """Each batch is of one group, or has an equal part of each."""


class StageSettings(Section):
    """Settings of one link of a recipe; each stage has a class of its own.

    A subclass names its stage with a field ``stage: Literal["<name>"]`` and says in class variables
    what has to be known before torch is imported.
    """

    implementation: ClassVar[str]
    """Module and class of the stage, as ``mlkd.stages.sentence:SentenceStage``."""
    roles: ClassVar[frozenset[str]] = frozenset({"start", "target"})
    """Names of the inputs that the stage reads; ``start`` is the encoder that it trains."""
    optional_roles: ClassVar[frozenset[str]] = frozenset()
    """Inputs that it reads where they are given."""
    outputs: ClassVar[frozenset[str]] = frozenset({"student"})
    """What a link of the stage hands over: the encoder that it trained, and what else there is."""
    needs_start: ClassVar[bool] = False
    """Whether what it hands over is of use only beside what it started from."""
    trained_roles: ClassVar[frozenset[str]] = frozenset()
    """Inputs that were trained from ``start``, and so are others."""
    head_a_domain: ClassVar[bool] = False
    """Whether its output ``head`` has one for each domain."""
    whole: ClassVar[bool] = True
    """Whether the stage runs and trains all layers of the encoder."""

    stage: str
    """How the link trains: the name of a stage."""
    inputs: Annotated[dict[str, str], Decides.CHAIN]
    """Where each input comes from: ``teacher``, ``base`` (the assistant before any training),
    ``student`` (a new one, made as ``student`` and ``init`` say from the input ``source``), or the
    name of an earlier link; ``<link>.<output>`` for another output than its student. A link that is
    left out is passed over: what it started from takes the place of its student."""
    enabled: Annotated[bool, Decides.CHAIN] = True
    """false leaves the link out of the chain (an ablation)."""
    seed: Annotated[Seed | None, Decides.CHAIN] = None
    """Seed of the link; null = that of the chain."""
    epochs: Annotated[float, Field(gt=0.0, le=1e6)]
    """Passes over the training pairs."""
    max_steps: Positive | None = None
    """Upper limit of optimiser steps, whatever the epochs."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the source sentences whose pairs this link trains on, or of the texts of each class;
    ``data.fraction`` is for the pairs of the whole chain, the assistant's vocabulary included."""
    batch_size: Positive
    """Pairs an optimiser step, over all devices."""
    lr: Annotated[float, Field(gt=0.0, le=1.0)]
    """Peak learning rate."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Hidden and attention dropout while training; the targets are deterministic."""
    grouping: GroupingConfig | None = None
    """null = batches are mixed, as ``data.mixing`` says."""
    optim: OptimConfig = Field(default_factory=OptimConfig)

    @property
    def reads_domains(self) -> bool:
        """Whether labels of domains decide what the link does."""
        return self.grouping is not None and self.grouping.by == "domain"

    @property
    def least_of_group(self) -> int:
        """Pairs of each group that a batch by group needs on each process."""
        return 1

    def labelled_of(self, known: Mapping[str, LabelledConfig]) -> dict[str, LabelledConfig]:
        """The labelled corpora that the link trains on; none: it trains on pairs.

        Args:
            known: ``data.labelled``.

        Raises:
            ValueError: There is nothing that it could train on.
        """
        return {}

    def handed_over(self, known: Mapping[str, LabelledConfig]) -> frozenset[str]:
        """Those of :attr:`outputs` that there are; optional inputs from others are left out.

        Args:
            known: ``data.labelled``.

        Raises:
            ValueError: There is nothing that it could train on.
        """
        return self.outputs

    def useless(self, student: StudentConfig) -> str | None:
        """What the student would need for this stage to be of use; None if it is."""
        return None

    def unread(self, passes: int) -> dict[str, str]:
        """Settings without a meaning where layers run so often, and why, in words."""
        return {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        for name in get_args(cls.model_fields["stage"].annotation):
            KNOWN[name] = cls


class LabelledSettings(StageSettings):
    """Settings of a link that trains on labelled text instead of pairs."""

    labelled: Several[str] | None = None
    """Corpora of ``data.labelled``; null = all. They are of one kind, with the same labels."""

    def labelled_of(self, known: Mapping[str, LabelledConfig]) -> dict[str, LabelledConfig]:
        """The corpora that it names."""
        corpora = self._named(known)
        if reason := self.lacks(task_of(corpora)):
            raise ValueError(reason)
        return corpora

    def _named(self, known: Mapping[str, LabelledConfig]) -> dict[str, LabelledConfig]:
        names = [*known] if self.labelled is None else list(dict.fromkeys(self.labelled))
        if missing := [name for name in names if name not in known]:
            allowed = ", ".join(known) or "none, data.labelled is empty"
            raise ValueError(f"labelled: no {missing[0]} in data.labelled; it has {allowed}")
        if not names:
            raise ValueError("data.labelled is empty; give labelled text")
        return {name: known[name] for name in names}

    def lacks(self, task: Task) -> str | None:
        """What the settings lack for such labels, or have beside them; None if they fit."""
        return None
