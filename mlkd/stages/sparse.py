"""Few entries of the weights are trained, those that a dense training moved furthest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlkd.config.stages.sparse import SparseSettings, SparseTaskSettings
from mlkd.encoders.difference import (
    FILE,
    Difference,
    Entries,
    codes_of,
    save_difference,
    weights_fingerprint,
    weights_of,
)
from mlkd.encoders.folder import load_folder
from mlkd.output.errors import UserError
from mlkd.stages.base import Stage
from mlkd.stages.sentence import SentenceStage
from mlkd.stages.task import TaskStage
from mlkd.student.furthest import furthest
from mlkd.student.table import OccurringRows


def maskable(model: nn.Module, freeze_layernorm: bool) -> dict[str, nn.Parameter]:
    """The parameters of an encoder whose entries may be trained, Θ, by name.

    Args:
        model: With gradients where it is trained.
        freeze_layernorm: Whether those of LayerNorms are left out.
    """
    frozen: set[nn.Parameter] = set()
    if freeze_layernorm:
        norms = (module for module in model.modules() if isinstance(module, nn.LayerNorm))
        frozen = {parameter for norm in norms for parameter in norm.parameters()}
    known = weights_of(model)
    return {name: p for name, p in known.items() if p.requires_grad and p not in frozen}


class SparseEntries(Stage):
    """Lottery-ticket sparse fine-tuning (Ansell et al., 2022; 2023, phase 2b) of any stage.

    Of the N entries of the encoder the K = ⌊density N⌋ that the input ``moved`` moved furthest from
    the start are trained, with an optimiser of their own; the others stay as they are, bit for bit:
    their gradients are 0 before anything looks at them, and nothing decays. Rows of the word table
    whose pieces the text does not have cannot be trained; they count in N and are not chosen.
    """

    settings: Any  # SparseKeys, and those of the stage

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._maskable = maskable(self.model, self.settings.freeze_layernorm)
        for parameter in set(self.model.parameters()).difference(self._maskable.values()):
            parameter.requires_grad_(False)
        self._rows = {
            f"{name}.weight": module.position
            for name, module in self.model.named_modules()
            if isinstance(module, OccurringRows)
        }
        start = {name: parameter.detach() for name, parameter in self._maskable.items()}
        moved = self._moved(start)
        entries = sum(self._whole(name) for name in start)
        count = math.floor(self.settings.density * entries)
        if not count:
            raise self._refused(f"density={self.settings.density} of {entries} entries is none")
        if all(torch.equal(moved[name], start[name]) for name in start):
            raise self._refused("the input moved has not been trained: its weights are start's")
        masks = furthest(start, moved, count)
        self._before = {}
        for number, (name, mask) in enumerate(zip(start, masks, strict=True)):
            self.register_buffer(f"mask{number}", mask, persistent=False)
            self._before[name] = Entries(self._positions(name, mask), start[name][mask].clone())

    def on_after_backward(self) -> None:
        """Entries that are not chosen have no gradient; the norm that is clipped is of the rest."""
        super().on_after_backward()
        for number, parameter in enumerate(self._maskable.values()):
            if parameter.grad is not None:
                parameter.grad.masked_fill_(~getattr(self, f"mask{number}"), 0.0)

    def outputs(self) -> dict[str, Callable[[Path], None]]:
        """What has changed, as a file that is applied to the start."""
        difference = self.difference()
        return {**super().outputs(), "diff": lambda at: save_difference(difference, at / FILE)}

    def difference(self) -> Difference:
        """What the training has changed; the model's word table is whole again."""
        changed = {}

        def start() -> Iterator[tuple[str, Tensor]]:
            for name, parameter in weights_of(self.model).items():
                weight = parameter.detach().cpu()
                if name in self._before:
                    index, before = self._before[name].index, self._before[name].values
                    weight = weight.clone()
                    now = weight.view(-1)[index]
                    weight.view(-1)[index] = before
                    other = now.view(torch.int32) != before.view(torch.int32)  # -0.0 is not 0.0
                    if other.any():
                        changed[name] = Entries(index[other], now[other])
                yield name, weight
            yield from codes_of(self.model).items()

        return Difference(weights_fingerprint(start()), self.settings.density, changed)

    def _moved(self, start: dict[str, Tensor]) -> dict[str, Tensor]:
        """The trained encoder's tensors, of the rows that are trained here."""
        with torch.random.fork_rng([]):  # a model that is opened begins with random weights
            moved = load_folder(self.folders["moved"])
        theirs, found = weights_of(moved), {}
        own, codes = codes_of(self.model), codes_of(moved)
        if own.keys() != codes.keys() or any(
            not torch.equal(own[name].cpu(), codes[name]) for name in own
        ):
            raise self._refused("the input moved is no training of start: it has other codes")
        for name in sorted(theirs.keys() ^ weights_of(self.model).keys()):
            raise self._refused(f"the input moved is no training of start: one has no {name}")
        for name, tensor in start.items():
            other, rows = theirs[name].detach(), self._rows.get(name)
            if rows is not None and len(other) == len(rows):
                other = other[rows >= 0]
            if other.shape != tensor.shape:
                raise self._refused(f"the input moved is no training of start: {name} is another")
            found[name] = other
        return found

    def _whole(self, name: str) -> int:
        """Entries of a parameter, with all rows of the word table."""
        parameter, rows = self._maskable[name], self._rows.get(name)
        return parameter.numel() if rows is None else len(rows) * parameter.shape[1]

    def _positions(self, name: str, mask: Tensor) -> Tensor:
        """Flat positions in the whole parameter of what a mask takes; ascending."""
        index = mask.view(-1).nonzero()[:, 0]
        if (rows := self._rows.get(name)) is None:
            return index
        width = mask.shape[1]
        line = (rows >= 0).nonzero()[:, 0].cpu()
        return line[index // width] * width + index % width

    def _refused(self, reason: str) -> UserError:
        return UserError(f"stage {self.settings.stage}: {reason}")


class SparseStage(SparseEntries, SentenceStage):
    """Sparse fine-tuning towards sentence vectors: similarity without labels."""

    settings: SparseSettings


class SparseTaskStage(SparseEntries, TaskStage):
    """Sparse fine-tuning on labelled text; the head of a classification is trained as a whole.

    It starts as that of a dense training with the same seed did.
    """

    settings: SparseTaskSettings
