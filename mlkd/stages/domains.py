"""Several domains at once: each layer's and each domain's error counts by a ratio of its own."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import one_hot, pad

from mlkd.config.stages.domains import DomainsSettings
from mlkd.data.module import PairBatch
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.forward import Encoded, Taps, encode
from mlkd.losses import domain_sums as over
from mlkd.losses.domain_graph import DomainGraph
from mlkd.machine import ranks
from mlkd.stages.base import ParameterGroup, Stage, StepOutput
from mlkd.stages.layer_terms import LayerTerms, states_of
from mlkd.stages.sentence import pair_vectors
from mlkd.stages.signals import Signals, Vectors
from mlkd.stages.virtual import halves, response


class DomainsStage(Stage):
    """Dong et al. (2021), with sentence vectors in place of logits.

    Each domain's part of a batch has the errors of the stage ``layers``: token states of the
    embedding output and every layer, and attention, which count by the ratios of layer and domain;
    sentence vectors, which count by 1/D. With all ratios 1/D the loss is the mean over domains of
    that stage's.

    The ratios come from prototypes, the means of the student's states over the tokens of a domain:
    those of translations where domains are languages. On dev the prototypes are means over all dev
    pairs, and the loss, which selects, has all ratios 1/D, so that it does not hang on the graph.
    """

    settings: DomainsSettings
    _asks_target = False
    """Whether errors of rows need the target's sentence vectors in the step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        loss, target = self.settings.loss, self.live["target"].encoder
        rule = self.settings.map
        layers = LayerTerms("domains", self.model, target, rule, loss.hidden, loss.attention)
        self._aims = layers.aims
        self._states, self._sums = len(self._aims) + 1, over.Sums()
        self._history: dict[int, Tensor] = {}  # ratios (L, D) by step of validation
        self._dropout_seed = ranks.from_first(int(torch.randint(2**31, ())))
        self.graph: DomainGraph | None = None
        if (given := self.settings.graph) is not None:
            self.graph = DomainGraph(
                self._states,
                len(self.domains),
                backbone_of(self.model).config.hidden_size,
                aggregate=given.aggregate,
                self_attention=given.self_attention,
                rank=given.rank,
                heads=given.heads,
                head_width=given.head_width,
                residual=given.residual,
                dropout=given.dropout,
            )
            self.graph.requires_grad_(given.update != "frozen")

    @property
    def row_weights(self) -> dict[str, float]:
        """Weights of the terms of whole rows by name, which count by 1/D."""
        term = self.settings.loss.pair_mse
        return {} if term is None else {"pair_mse": term.weight}

    def row_errors(self, found: Encoded, wanted: Encoded, batch: PairBatch) -> dict[str, Tensor]:
        """Errors ``(B,)`` of a batch's rows by name, of which those without a weight are logged.

        Args:
            found: What the student gave; sentence vectors if there is a term.
            wanted: What the target gave.
            batch: The rows.
        """
        if not self.row_weights:
            return {}
        return {"pair_mse": over.pair_errors(pair_vectors(found.sentence.float(), batch))}

    @classmethod
    def signals(cls, settings: DomainsSettings) -> Signals:  # type: ignore[override]  # its own
        """The target in the step; its vectors of each side, if there is a term for them."""
        vectors = None if settings.loss.pair_mse is None else Vectors("translation")
        return Signals(vectors, live=frozenset({"target"}))

    def objective(self, batch: PairBatch) -> StepOutput:
        """Loss of a training batch; with ``update: alternate``, in odd steps, that of the graph."""
        if self._alternates and self.global_step % 2:
            return self.graph_objective(batch, self.trainer.optimizers[0].param_groups[0]["lr"])
        found = over.joined_means(sums := self.sums(batch))
        layers, vectors = self._weighted(found)
        ratios = self._ratios(sums)
        if self._alternates:
            ratios = ratios.detach()
        loss = (ratios * layers).sum() + vectors.mean()
        return self._output(loss, found, ratios)

    def graph_objective(self, batch: PairBatch, rate: float) -> StepOutput:
        """What the graph learns from: how its ratios help pairs that the student does not see.

        The student takes a plain step on one half of the batch's pairs of each domain, at a
        learning rate ``rate``, and takes it back. The loss is that of the other half after this
        step, all ratios 1/D; its gradient by the ratios is exact, and in parts of ``rate``.
        """
        seen, held = halves(batch)
        first, other = self.sums(seen, twice=True), dict[str, Tensor]()
        ratios = self._ratios({name: (s.detach(), n) for name, (s, n) in first.items()})

        def step(at: Tensor) -> Tensor:
            layers, vectors = self._weighted(over.joined_means(first))
            return (at * layers).sum() + vectors.mean()

        def judge() -> Tensor:
            other.update(over.joined_means(self.sums(held)))
            layers, vectors = self._weighted(other)
            return (layers.sum(0) + vectors).mean()

        students = [p for group in self.students() for p in group.parameters]
        loss, slope = response(students, step, judge, ratios, rate)
        towards = (slope * ratios).sum()  # a gradient, no value
        return self._output(loss + towards - towards.detach(), other, ratios)

    def sums(self, batch: PairBatch, *, twice: bool = False) -> over.Sums:
        """Errors and, for a graph, states, added up over each domain of a batch.

        ``twice``: in a way that can be differentiated twice, which is slower.
        """
        weights, sums, count = self.settings.loss, over.Sums(), len(self.domains)
        mine, theirs = [*self._aims], [*self._aims.values()]
        wants_states = weights.hidden is not None or self.graph is not None
        seen = frozenset(mine) if twice or weights.attention is not None else frozenset()
        states = frozenset({0, *mine}) if wants_states else frozenset()
        taps = Taps(bool(self.row_weights), states, seen)
        found = encode(self.model, batch.ids, batch.mask, taps)
        wanted = self.live["target"].encode(
            batch.ids,
            batch.mask,
            Taps(
                self._asks_target,
                frozenset() if weights.hidden is None else frozenset({0, *theirs}),
                frozenset() if weights.attention is None else frozenset(theirs),
            ),
        )
        # Mixed precision is for the encoders.
        with torch.autocast(self.device.type, enabled=False):
            sides = [batch.source, batch.translation]
            sentences = over.members(sides, batch.domain, len(batch.ids), count)
            rows = batch.mask.nonzero()[:, 0]  # the sentence of each token
            if weights.hidden is not None:
                both = states_of(found, [0, *mine]), states_of(wanted, [0, *theirs])
                sums["hidden"] = over.hidden_sums(*both, sentences[rows])
            if weights.attention is not None:
                shares = [found.attention[n] for n in mine], [wanted.attention[n] for n in theirs]
                sums["attention"] = over.attention_sums(*shares, batch.mask, sentences)
            if of_rows := self.row_errors(found, wanted, batch):
                own = one_hot(batch.domain, count).float()
                sums |= {name: (errors @ own, own.sum(0)) for name, errors in of_rows.items()}
            if self.graph is not None and self.settings.graph is not None:
                if self.settings.grouping.by == "language":
                    sentences = over.members(sides[1:], batch.domain, len(batch.ids), count)
                own_states = states_of(found, [0, *mine])
                if self.settings.graph.detach_prototypes:
                    own_states = [state.detach() for state in own_states]
                sums["prototypes"] = over.prototype_sums(own_states, sentences[rows])
        return sums

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Add a dev batch to the sums."""
        self._sums = over.added(self._sums, self.sums(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the loss with all ratios 1/D, its terms, and the ratios."""
        sums, self._sums = self._sums, over.Sums()
        there = next(iter(sums.values()))[1] > 0
        found = {name: mean[..., there] for name, mean in over.means(sums).items()}
        layers, vectors = self._weighted(found)
        output = self._output((layers.sum(0) + vectors).mean(), found, self._ratios(sums))
        self.log_dict({f"dev/{name}": v for name, v in output.logs.items()})
        self.log("dev/loss", output.loss)
        present = list(compress(self.domains, there.tolist()))
        for name, mean in found.items():
            if mean.ndim == 1:  # of rows
                values = zip(present, mean.tolist(), strict=True)
                self.log_dict({f"dev/{name}/{domain}": value for domain, value in values})
        ratios = self._ratios(sums).cpu()
        self._history[self.global_step] = ratios
        for layer, row in enumerate(ratios.tolist()):
            values = zip(self.domains, row, strict=True)
            self.log_dict({f"ratio/{layer}/{domain}": ratio for domain, ratio in values})

    def students(self) -> list[ParameterGroup]:
        """What is trained but for the graph."""
        return [ParameterGroup([p for p in self.model.parameters() if p.requires_grad])]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The student and the graph, by turns if they alternate."""
        alternates = self._alternates
        turn = _even if alternates else None
        groups = [replace(group, turn=turn) for group in self.students()]
        if (given := self.settings.graph) is not None and given.update != "frozen":
            assert self.graph is not None
            own, turn = [*self.graph.parameters()], _odd if alternates else None
            groups.append(ParameterGroup(own, rate=given.rate, turn=turn))
        return groups

    def outputs(self) -> dict[str, Callable[[Path], None]]:
        """``graph.safetensors`` of the best weights; ``ratios.csv`` of every validation."""
        state = {} if self.graph is None else self.graph.state_dict()
        weights = {name: value.detach().cpu() for name, value in state.items()}

        def write(folder: Path) -> None:
            if weights:
                save_file(weights, folder / "graph.safetensors")
            with (folder / "ratios.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["step", "layer", "domain", "ratio"])
                for step, ratios in self._history.items():
                    for layer, row in enumerate(ratios.tolist()):
                        for domain, ratio in zip(self.domains, row, strict=True):
                            writer.writerow([step, layer, domain, f"{ratio:.6g}"])

        return {"domain_weights": write}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the ratios of the validations so far as well."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["ratios"] = self._history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them over."""
        super().on_load_checkpoint(checkpoint)
        self._history = dict(checkpoint["ratios"])

    @property
    def _alternates(self) -> bool:
        return self.settings.graph is not None and self.settings.graph.update == "alternate"

    def _weighted(self, means: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weighted errors of states ``(L, D)`` and of rows ``(D,)``.

        In a domain they add up to the loss of the stage ``layers``: the mean over states and that
        over layers.
        """
        weights, any_mean = self.settings.loss, next(iter(means.values()))
        layers = any_mean.new_zeros(self._states, any_mean.shape[-1])
        rows = any_mean.new_zeros(any_mean.shape[-1])
        if weights.hidden is not None:
            layers = layers + weights.hidden.weight / self._states * means["hidden"]
        if weights.attention is not None:
            share = weights.attention.weight / (self._states - 1)
            layers = layers + share * pad(means["attention"], (0, 0, 1, 0))
        for name, weight in self.row_weights.items():
            rows = rows + weight * means[name]
        return layers, rows

    def _ratios(self, sums: over.Sums) -> Tensor:
        """Ratios ``(L, D)`` of layers and domains, the same on all ranks."""
        count = next(iter(sums.values()))[1]
        even = (count > 0).float().expand(self._states, -1) / (count > 0).sum()
        if self.graph is None or self.settings.graph is None:
            return even
        total, count = over.joined_sums(sums["prototypes"])
        prototypes = (total / count.clamp_min(1.0)).transpose(1, 2)
        on = [self.device] if self.device.type == "cuda" else []
        with torch.autocast(self.device.type, enabled=False), torch.random.fork_rng(on):
            torch.manual_seed(self._dropout_seed + self.global_step)
            ratios = self.graph(prototypes, count > 0)
        return torch.lerp(ratios, even, self.settings.graph.mix)

    def _output(self, loss: Tensor, means: dict[str, Tensor], ratios: Tensor) -> StepOutput:
        """The loss with the penalty of uneven ratios, and what is logged."""
        logs = {name: mean.mean() for name, mean in means.items() if name != "prototypes"}
        if (given := self.settings.graph) is not None:
            domains = int((ratios > 0).any(0).sum())
            uneven = torch.xlogy(ratios, ratios.clamp_min(1e-12) * domains).sum(1).mean()
            if given.entropy and self.training:
                loss = loss + given.entropy * uneven
            logs["unevenness"] = uneven
        return StepOutput(loss, {name: value.detach() for name, value in logs.items()})


def _even(step: int) -> bool:
    return step % 2 == 0


def _odd(step: int) -> bool:
    return step % 2 == 1
