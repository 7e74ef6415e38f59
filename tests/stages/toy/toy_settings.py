"""Settings of a stage that another package brings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mlkd.config.stages import StageSettings


class ToySettings(StageSettings):
    """Token states through a map aim at those of a live encoder."""

    implementation: ClassVar[str] = "toy_stage:ToyStage"
    version: ClassVar[int] = 1
    outputs: ClassVar[frozenset[str]] = frozenset({"student", "map"})

    stage: Literal["toy"]
    map_rate: Annotated[float, Field(gt=0.0)] = 3.0
