"""A stage that another package brings: a map of its own, live states, turns, a second output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from toy_settings import ToySettings

from mlkd.data.module import PairBatch
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.encoders.forward import Taps, encode
from mlkd.stages.base import ParameterGroup, Stage, StepOutput
from mlkd.stages.signals import Signals, Vectors


class ToyStage(Stage):
    """Last token states, mapped, aim at the target's; sentence vectors at its own."""

    settings: ToySettings
    selects = "dev/closeness"
    selects_largest = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        width = backbone_of(self.model).config.hidden_size
        torch.manual_seed(0)
        self.map = nn.Linear(width, width)

    @classmethod
    def signals(cls, settings: ToySettings) -> Signals:  # type: ignore[override]
        return Signals(Vectors("translation"), live=frozenset({"target"}))

    def objective(self, batch: PairBatch) -> StepOutput:
        mine, theirs = (len(layers(backbone_of(m))) for m in (self.model, self._target.model))
        found = encode(self.model, batch.ids, batch.mask, Taps(hidden=frozenset({mine})))
        wanted = self.live["target"].encode(
            batch.ids, batch.mask, Taps(sentence=False, hidden=frozenset({theirs}))
        )
        states = F.mse_loss(self.map(found.hidden[mine]), wanted.hidden[theirs])
        vectors = F.mse_loss(found.sentence[batch.source], batch.source_target)
        return StepOutput(states + vectors, {"closeness": -states.detach()})

    def parameter_groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup(list(self.model.parameters()), turn=lambda step: step % 2 == 0),
            ParameterGroup(
                list(self.map.parameters()),
                rate=self.settings.map_rate,
                decay=0.0,
                turn=lambda step: step % 2 == 1,
            ),
        ]

    def outputs(self) -> dict[str, Callable[[Path], None]]:
        weights = {name: value.detach().cpu() for name, value in self.map.state_dict().items()}
        return {"map": lambda folder: save_file(weights, folder / "map.safetensors")}

    @property
    def _target(self) -> Any:
        return self.live["target"].encoder
