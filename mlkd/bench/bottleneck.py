"""Case: the large vocabulary behind a bottleneck embedding."""

from __future__ import annotations

import torch

from mlkd.bench.contest import TableLine
from mlkd.bench.training import contest, derived, open_for_training, with_languages
from mlkd.bench.vocabulary import enlarged
from mlkd.config.bench import BenchmarkConfig
from mlkd.config.student import InitConfig
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.output.errors import UserError
from mlkd.storage.files import replacing_folder
from mlkd.student.initialise import build_student


def measure(config: BenchmarkConfig) -> list[TableLine]:
    """All encoder layers, the word table factorised as ``student.bottleneck`` says."""
    if config.student.bottleneck is None:
        raise UserError("benchmark.cases: bottleneck needs a student.bottleneck")
    chain = open_for_training(with_languages(config, 1, "de"))
    source = enlarged(chain, config.benchmark.rows)
    folder = derived(chain, "bottleneck", config.benchmark.rows, config.student.bottleneck)
    if not folder.is_dir():
        model = load_folder(source)
        depth = len(layers(backbone_of(model)))
        size = config.student.model_copy(
            update={"layers": depth, "recurrence": 1, "intermediate": None}
        )
        init = InitConfig(source="teacher", layers="first", embedding="svd")
        frequency = torch.ones(config.benchmark.rows)
        student = build_student(model, size, init, frequency, chain.config.data.max_tokens)
        with replacing_folder(folder) as part:
            save_folder(student, part)
    return contest(config, chain, folder)
