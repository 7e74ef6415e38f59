"""What users would do instead of the chain, from the same assistant, pairs and evaluation."""

from __future__ import annotations

import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from mlkd.config.bench import BaselinesConfig
from mlkd.config.compose import compose_recipe
from mlkd.config.formats import Q4Config
from mlkd.config.schema import TrainConfig
from mlkd.config.student import InitConfig, TrimConfig
from mlkd.data.tokens import tokenise
from mlkd.deploy.exported import INT8, Q4, open_onnx
from mlkd.deploy.formats import FORMATS, KINDS, encoder
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.machine.hardware import describe_hardware, device_of
from mlkd.metrics.scoring import Encode
from mlkd.metrics.size import folder_mib, parameters
from mlkd.metrics.table import records_of, rows_of, to_markdown
from mlkd.output.secrets import redacted
from mlkd.recipes.chain import Chain, open_chain
from mlkd.recipes.recipe import New, links
from mlkd.recipes.run import run_links
from mlkd.runs.record import environment, now
from mlkd.storage.files import replacing, write_json, write_rows
from mlkd.student.static import static_encoder
from mlkd.student.trim import language_counts, pieces_to_keep, trimmed

log = logging.getLogger(__name__)

_STATIC_WIDTH = 256
"""Width of the static vectors, model2vec's default, where the assistant is as wide."""


def measure_baselines(config: TrainConfig) -> tuple[str, dict[str, dict[str, Any]]]:
    """Run the chain, then everything that it is compared with.

    All are scored in fp32 (exports in their own arithmetic) and timed in one race.

    Returns:
        Id of the chain's last run, and by name what ``measure`` and ``speed`` of
        :class:`mlkd.metrics.evaluation.Evaluation` give: the models of the chain;
        ``mse recipe``, see :func:`mse_recipe`; ``start``, the student before any training;
        ``layer cut``, as many whole layers and the assistant's whole word table; ``static``, see
        :func:`mlkd.student.static.static_encoder`; ``assistant int8``, ``student int8``,
        ``assistant q4`` and ``student q4``, the assistant and the chain's student as ``onnx_int8``
        and ``onnx_q4``, which nothing was trained for; ``assistant pq``, its ``onnx_q4`` with a
        word table in codes and without the pieces that the pairs never have.
    """
    chain = _finished(config)
    recipe = _finished(mse_recipe(config, _pairs_taken(chain)))
    folders = chain.folders | {"mse recipe": recipe.folders[recipe.config.stage]}
    assistant, student = map(load_folder, (chain.assistant, chain.folders[config.stage]))
    assistant.max_seq_length = config.data.max_tokens
    width = min(_STATIC_WIDTH, int(assistant.get_embedding_dimension() or 0))
    static = static_encoder(assistant, _frequency(chain, assistant), width)
    with tempfile.TemporaryDirectory() as temporary:
        made = {"start": chain.new_student(_start(chain)), "layer cut": _layer_cut(chain)}
        for name, model in made.items():
            folders[name] = Path(temporary, name)
            save_folder(model, folders[name])
        measured = {n: chain.evaluation.cached(f, chain.cache, n) for n, f in folders.items()}
        encoders = {name: chain.evaluation.encoder(folder) for name, folder in folders.items()}

        folder = Path(temporary, "static")
        static.save(str(folder))
        encoders["static"] = encoder(static)
        measured["static"] = _measured(chain, encoders["static"], static, folder, "fp32")
        int8, q4 = FORMATS["onnx_int8"].write, FORMATS["onnx_q4"].write
        codes = partial(q4, q4=Q4Config(table="pq"))
        for name, model, file, write in (
            ("assistant int8", assistant, INT8, int8),
            ("student int8", student, INT8, int8),
            ("assistant q4", assistant, Q4, q4),
            ("student q4", student, Q4, q4),
            ("assistant pq", _trimmed(chain, assistant), Q4, codes),
        ):
            folder = Path(temporary, name)
            folder.mkdir()
            write(model, folder)
            encode = encoders[name] = open_onnx(folder, torch.get_num_threads())
            make = partial(_measured, chain, encode, model, folder, KINDS[file])
            measured[name] = chain.evaluation.cached_graph(folder / file, chain.cache, name, make)
        for name, times in chain.evaluation.speed(encoders).items():
            measured[name] |= times
    return chain.folders[config.stage].parent.name, measured


def write_baselines(
    config: BaselinesConfig, name: str, measured: dict[str, dict[str, Any]]
) -> Path:
    """Write what :func:`measure_baselines` gives, and what it is of: JSON, and tables beside it."""
    given = config.output
    output = Path(given) if given else Path(config.output_dir, f"baselines-{name}.json")
    provenance = {
        "finished": now(),
        "hardware": describe_hardware(device_of(config.trainer.accelerator)),
        "seed": config.seed,
    }
    content = {"environment": environment(), "config": redacted(config.model_dump(mode="json"))}
    write_json(output, provenance | content | {"models": measured})
    write_rows(output.with_suffix(".csv"), [row | provenance for row in records_of(measured)])
    with replacing(output.with_suffix(".md")) as part:
        part.write_text(to_markdown(rows_of(measured)), encoding="utf-8")
    return output


def mse_recipe(config: TrainConfig, pairs: int) -> TrainConfig:
    """The same student by ``recipe=mse``, as Reimers and Gurevych (2020) train it.

    The assistant's link stays what it is in the chain, so that both have one assistant.

    Args:
        config: The chain it is compared with.
        pairs: How many pairs it is trained on.
    """
    recipe = compose_recipe("mse")
    stages: dict[str, Any] = recipe["stages"]
    stages |= {name: link for name, link in config.model_dump()["stages"].items() if name in stages}
    last, batch_size = recipe["stage"], config.stages[config.stage].batch_size
    stages[last] |= {
        "epochs": 1000.0,
        "batch_size": batch_size,
        "max_steps": max(1, pairs // batch_size),
    }
    values = config.model_dump() | {"recipe": "mse", "stage": last, "stages": stages}
    return TrainConfig.model_validate({key: values[key] for key in TrainConfig.model_fields})


def _finished(config: TrainConfig) -> Chain:
    """A chain whose links have all run."""
    chain = open_chain(config)
    chain.measure_references()
    run_links(chain, links(config))
    return chain


def _pairs_taken(chain: Chain) -> int:
    """On how many pairs the student was trained; those of links that train a part are cheaper."""
    students = [link for link in links(chain.config) if link.trains_student]
    return sum(
        chain.runs[link.name].read()["training"]["steps"] * link.settings.batch_size
        for link in students
    )


def _start(chain: Chain) -> New:
    """The student before any training."""
    starts = (link.inputs["start"] for link in links(chain.config))
    return next(start for start in starts if isinstance(start, New))


def _frequency(chain: Chain, model: SentenceTransformer) -> Tensor:
    """Count of each piece in the pairs' distinct sentences."""
    tokens = tokenise(chain.pairs, model.tokenizer, chain.config.data.max_tokens, chain.cache)
    return torch.from_numpy(tokens.frequency(backbone_of(model).config.vocab_size))


def _trimmed(chain: Chain, model: SentenceTransformer) -> SentenceTransformer:
    """The model without the pieces that a student drops, or that the pairs never have."""
    tokens = tokenise(chain.pairs, model.tokenizer, chain.config.data.max_tokens, chain.cache)
    counts = language_counts(chain.pairs, tokens, backbone_of(model).config.vocab_size)
    trim = chain.config.student.trim or TrimConfig()
    return trimmed(model, pieces_to_keep(model, counts, trim))


def _layer_cut(chain: Chain) -> SentenceTransformer:
    """A student that has the assistant's whole layers and word table."""
    config = chain.config
    whole = {"bottleneck": None, "codes": None, "intermediate": None, "trim": None, "recurrence": 1}
    size = config.student.model_copy(update=whole)
    init = InitConfig(source="teacher", layers=config.init.layers, embedding="copy")
    return chain.new_student(_start(chain), size, init)


def _measured(
    chain: Chain, encode: Encode, model: SentenceTransformer, folder: Path, precision: str
) -> dict[str, Any]:
    """Scores and size of an encoder that is no folder of mlkd's."""
    log.info("evaluate %s", folder.name)
    return {
        "scores": chain.evaluation.scores(encode),
        "precision": precision,
        "parameters": parameters(model),
        "mib": folder_mib(folder),
    }
