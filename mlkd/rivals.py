"""What users would do instead of the chain, from the same assistant, pairs and evaluation."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from mlkd.chain import Chain, new_student, open_chain, run_links
from mlkd.data.tokens import tokenise
from mlkd.deploy.formats import FORMATS, Format
from mlkd.links import links
from mlkd.metrics.size import folder_mib, parameters
from mlkd.runs.record import read_record
from mlkd.schema import LossConfig, PairMSEConfig, TrainConfig
from mlkd.student.backbone import backbone_of
from mlkd.student.folder import load_folder
from mlkd.student.static import static_encoder

_STATIC_WIDTH = 256
"""Width of the static vectors: model2vec's default."""


def measure_rivals(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """Run the chain, then everything that it is compared with.

    Returns:
        By name ``scores``, ``parameters`` and ``mib``: the models of the chain; ``mse recipe``, the
        student trained in one stage on the teacher's vectors of the source (Reimers and Gurevych,
        2020) for as many pairs as all its stages took; ``start``, the student before any training;
        ``layer cut``, the same layers with the whole word table; ``static``
        (:mod:`mlkd.student.static`); ``int8``, the assistant as ``onnx_int8``.
    """
    chain = _finished(config)
    recipe = _finished(mse_recipe(config, _pairs_taken(chain)))
    measured = chain.measured | {"mse recipe": recipe.measured[recipe.config.stage]}
    assistant = load_folder(chain.assistant)
    compact, cut = FORMATS["sentence_transformers"], _without_bottleneck(chain)
    static = static_encoder(assistant, _frequency(chain, assistant), _STATIC_WIDTH)
    plain = Format(lambda model, folder: model.save(str(folder)), FORMATS["dense"].open, None)
    return measured | {
        "start": _measure(chain, new_student(chain), compact),
        "layer cut": _measure(chain, new_student(cut), compact),
        "static": _measure(chain, static, plain),
        "int8": _measure(chain, assistant, FORMATS["onnx_int8"]),
    }


def mse_recipe(config: TrainConfig, pairs: int) -> TrainConfig:
    """The same student in one stage with the mean squared error to the teacher's vectors.

    Args:
        config: The chain it is compared with; the learning rate is that of stage 3, which trains
            new students.
        pairs: How many pairs it is trained on.
    """
    values = config.model_dump() | {"stage": "contrastive"}
    stages = values["stages"]
    for name in ("bottleneck", "recurrent"):
        stages[name]["enabled"] = False
    stages["contrastive"] |= {
        "enabled": True,
        "loss": LossConfig(pair_mse=PairMSEConfig()).model_dump(),
        "lr": config.stages["recurrent"].lr,
        "epochs": 1000.0,
        "max_steps": max(1, pairs // config.stages["contrastive"].batch_size),
    }
    return TrainConfig.model_validate({key: values[key] for key in TrainConfig.model_fields})


def _finished(config: TrainConfig) -> Chain:
    """A chain whose links have all run."""
    chain = open_chain(config)
    chain.measure_references()
    run_links(chain, links(config))
    return chain


def _pairs_taken(chain: Chain) -> int:
    """On how many pairs the student was trained, in all stages."""
    taken = 0
    for name in links(chain.config):
        if name != "assistant":
            folder = chain.folders[name].parent
            steps = read_record(folder)["training"]["steps"]
            taken += steps * chain.config.stages[name].batch_size
    return taken


def _frequency(chain: Chain, model: SentenceTransformer) -> Tensor:
    """Count of each piece in the training text."""
    tokens = tokenise(chain.pairs, model.tokenizer, chain.config.data.max_tokens, chain.cache)
    return torch.from_numpy(tokens.frequency(backbone_of(model).config.vocab_size))


def _without_bottleneck(chain: Chain) -> Chain:
    """The same chain with a student that has the whole word table."""
    config = chain.config
    size = config.student.model_copy(update={"bottleneck": None})
    init = config.init.model_copy(update={"embedding": "copy"})
    return replace(chain, config=config.model_copy(update={"student": size, "init": init}))


def _measure(chain: Chain, model: SentenceTransformer, form: Format) -> dict[str, Any]:
    """Numbers of a model in a format."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "encoder")
        form.write(model, folder)
        return {
            "scores": chain.evaluation.scores(form.open(folder)),
            "parameters": parameters(model),
            "mib": folder_mib(folder),
        }
