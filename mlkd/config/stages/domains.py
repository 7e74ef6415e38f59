"""Settings of the stage that weighs layers and domains."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mlkd.config.section import Fraction, Positive, Section
from mlkd.config.stages.base import GroupingConfig
from mlkd.config.stages.layers import LayerTermsConfig, LayerwiseSettings
from mlkd.config.stages.task import HeadSettings, SoftConfig, SoftLossConfig


class DomainGraphConfig(Section):
    """The graph that makes the ratios of layers and domains."""

    version: ClassVar[int] = 1

    update: Literal["frozen", "joint", "alternate"] = "joint"
    """``frozen``: its random weights stay (the released code). ``joint``: it learns from the
    student's loss, which by itself prefers the easiest domain; see ``mix``. ``alternate``: in every
    second step it learns alone, from what a step of the student does to other pairs."""
    detach_prototypes: bool = True
    """Whether the student cannot lower its loss by steering the ratios; false = the released
    code."""
    mix: Fraction = 0.2
    """Share of 1/D in the ratios of D domains: none falls below ``mix`` / D. Below 1, where
    no graph would count."""
    entropy: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of how far the ratios are from 1/D (Kullback-Leibler, mean over layers, nats)."""
    rate: Annotated[float, Field(gt=0.0)] = 1.0
    """Learning rate of the graph, in parts of the link's."""
    aggregate: Literal["compare", "mean", "none"] = "compare"
    """What takes the place of a layer's prototype: the mean of those up to it, weighted by
    comparison; their plain mean; nothing."""
    self_attention: bool = True
    """Whether prototypes are compared with what their domain attends to among all domains, and not
    with the domain's own."""
    rank: Positive | None = 8
    """Of the matrices that compare prototypes; null = whole ones."""
    heads: Positive = 4
    """Of the first layer of graph attention."""
    head_width: Positive = 32
    """Dimensions of such a head."""
    residual: bool = True
    """Whether a domain's score has a part that is its own; false = the released code, where all
    domains often have the same score."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """In graph attention while training; the paper's is 0.1."""

    @model_validator(mode="after")
    def _every_key_is_read(self) -> DomainGraphConfig:
        if self.mix == 1.0:
            raise ValueError("mix=1: all ratios would be 1/D; allowed: below 1, or graph: null")
        unread = set()
        if self.update == "frozen":
            unread |= {"rate"} | ({"entropy"} if self.detach_prototypes else set())
        if self.update == "alternate":
            unread |= {"detach_prototypes"}
        if self.aggregate != "compare":
            unread |= {"rank", "self_attention"}
        for key in sorted(unread):
            if getattr(self, key) != type(self).model_fields[key].default:
                why = "aggregate" if key in ("rank", "self_attention") else "update"
                raise ValueError(f"{key} is not read with {why}={getattr(self, why)}")
        return self


class DomainsSettings(LayerwiseSettings):
    """Several domains at once, whose terms count by learned ratios in each layer."""

    implementation: ClassVar[str] = "mlkd.stages.domains:DomainsStage"
    version: ClassVar[int] = 1
    outputs: ClassVar[frozenset[str]] = frozenset({"student", "domain_weights"})

    stage: Literal["domains"]
    grouping: GroupingConfig = GroupingConfig(by="domain", mode="all")
    """What a domain is; each batch has an equal part of all."""
    graph: DomainGraphConfig | None = DomainGraphConfig()
    """null: all ratios are 1/D, which is layer-wise distillation of all domains at equal scale."""

    @property
    def least_of_group(self) -> int:
        """Two where the graph learns from one half what the other half's step did."""
        return 2 if self.graph is not None and self.graph.update == "alternate" else 1

    @model_validator(mode="after")
    def _all_in_a_batch(self) -> DomainsSettings:
        if self.grouping.mode != "all":
            raise ValueError("grouping.mode must be all: each batch needs a part of every domain")
        return self


class DomainsTaskLossConfig(LayerTermsConfig, SoftLossConfig):
    """Layers, which count by the ratios, and what the target says of a text, which may be alone."""

    soft: SoftConfig = SoftConfig()


class DomainsTaskSettings(DomainsSettings, HeadSettings):
    """The same on labelled text, whose labels are not read in training: a head a domain."""

    implementation: ClassVar[str] = "mlkd.stages.domains_task:DomainsTaskStage"
    version: ClassVar[int] = 1
    optional_roles: ClassVar[frozenset[str]] = frozenset({"target_head"})
    outputs: ClassVar[frozenset[str]] = frozenset({"student", "head", "domain_weights"})
    head_a_domain: ClassVar[bool] = True

    stage: Literal["domains_task"]  # type: ignore[assignment]  # a stage of its own
    loss: DomainsTaskLossConfig = DomainsTaskLossConfig()  # type: ignore[assignment]  # its own

    @model_validator(mode="after")
    def _graph_has_layers(self) -> DomainsTaskSettings:
        if self.graph is not None and not self._compares_layers:
            reason = "graph weighs loss.hidden and loss.attention"
            raise ValueError(f"{reason}; give one, or graph: null")
        return self

    def unread(self, passes: int) -> dict[str, str]:
        """The map, where no layer is compared."""
        reason = "loss.hidden and loss.attention are null"
        return super().unread(passes) | ({} if self._compares_layers else {"map": reason})

    @property
    def _compares_layers(self) -> bool:
        return self.loss.hidden is not None or self.loss.attention is not None
