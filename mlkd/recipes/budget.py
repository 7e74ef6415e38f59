"""A size as the only input: the shape of at most so many MiB whose start is nearest to its source.

The size is that of the graph that ``python -m mlkd.export`` writes, counted from the graph itself.
The start is judged before any training (see :mod:`mlkd.student.shapes`), so that a search takes
minutes; what it has found is kept in the cache.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from mlkd.config.schema import TrainConfig
from mlkd.config.student import StudentConfig, TrimConfig
from mlkd.data.tokens import tokenise
from mlkd.deploy.quantise import Weights
from mlkd.deploy.source import check_packages
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder
from mlkd.output.errors import UserError
from mlkd.output.progress import progress
from mlkd.recipes.chain import Chain, open_chain
from mlkd.recipes.recipe import Made, New, links
from mlkd.recipes.run import check_groups, run_chain
from mlkd.runs.record import Run
from mlkd.storage.files import digest, encoder_fingerprint, write_json
from mlkd.student.shapes import Starts, WordTable, neurons, tables
from mlkd.student.trim import language_counts, pieces_to_keep, trimmed

log = logging.getLogger(__name__)

_VERSION = 1
_SHOWN = 4
"""Shapes that are named beside the chosen one."""

Shape = tuple[WordTable, int, int]
"""Word table, layers, and neurons of each."""


def within_budget(config: TrainConfig, size: float) -> TrainConfig:
    """The configuration with a student of a size; trains what the student starts from.

    Args:
        config: The chain.
        size: Of the student's graph, in MiB.

    Raises:
        UserError: No student is so small, or there is nothing that it could start from.
    """
    check_packages(["onnx_int8"])
    new = next(x for link in links(config) if isinstance(x := link.inputs["start"], New))
    runs: list[Run] = []
    chain = open_chain(config)
    check_groups(chain, links(config))
    if isinstance(new.source, Made):
        run_chain(config.model_copy(update={"stage": new.source.link}), runs.append)
    chain.runs |= {run.link: run for run in runs}
    found = _known(chain, chain.folder(new.source), size)
    best = found[0]
    log.info("student of %g MiB: %s", size, best["is"])
    for near in found[1 : 1 + _SHOWN]:
        log.info("near it: %s", near["is"])
    student = StudentConfig.model_validate(best["student"])
    how = "svd" if student.codes is None else "kmeans"
    init = config.init.model_copy(update={"embedding": how})
    return config.model_copy(update={"budget_mib": None, "student": student, "init": init})


def _known(chain: Chain, source: Path, size: float) -> list[dict[str, Any]]:
    """The shapes that fit, the best one first, from the cache where they are there."""
    config, pairs = chain.config, chain.pairs
    asked = [size, config.budget_of, config.data.max_tokens, config.seed]
    settings = [config.init.layers, config.init.frequency_power]
    content = [encoder_fingerprint(source), pairs.fingerprint]
    file = chain.cache / f"budget-{digest([_VERSION, *asked, *settings, *content])}.json"
    if not file.is_file():
        write_json(file, _search(chain, source, size))
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _search(chain: Chain, source: Path, wanted: float) -> list[dict[str, Any]]:
    """Shapes that fit, with size and cosine, the largest cosine first.

    Raises:
        UserError: None fits.
    """
    config, pairs = chain.config, chain.pairs
    most, kind = wanted * 2**20, config.budget_of
    limit = config.data.max_tokens
    encoder = load_folder(source)
    tokens = tokenise(pairs, encoder.tokenizer, limit, chain.cache)
    counts = language_counts(pairs, tokens, backbone_of(encoder).config.vocab_size)
    encoder = trimmed(encoder, pieces_to_keep(encoder, counts, TrimConfig()))
    tokens = tokenise(pairs, encoder.tokenizer, limit, chain.cache)
    held_out = pairs.dev_pairs()
    sentences = np.unique([pairs.source[held_out], pairs.translation[held_out]])
    starts = Starts(encoder, tokens, sentences, config.init, limit, config.seed)
    fitting, least = deepest(sizes(starts, kind), starts.depth, most)
    if not fitting:
        raise UserError(
            f"budget_mib={wanted:g}: the smallest student has {least / 2**20:.3g} MiB in {kind}"
        )
    found = []
    bar = progress("compare starts", total=len(fitting), unit=" shapes")
    for table, number, width in fitting:
        model = starts.student(table, number, width)
        size, cosine = graph_bytes(model, kind), starts.cosine(model)
        bar.update()
        student = starts.size(table, number, width)
        if size <= most:
            says = f"{size / 2**20:.2f} MiB in {kind}, cosine {cosine:.3f}: {_words(student)}"
            found.append({"student": student.model_dump(), "cosine": cosine, "is": says})
    bar.close()
    if not found:  # names of nodes are longer in deeper graphs
        raise UserError(
            f"budget_mib={wanted:g}: no shape is that small by a few bytes; give a little more"
        )
    return sorted(found, key=lambda shape: -shape["cosine"])


def graph_bytes(model: Any, kind: Weights) -> int:
    """Bytes of an encoder's graph."""
    from mlkd.deploy.onnx_encoder import build_graph

    return int(build_graph(model, kind).ByteSize())


def sizes(starts: Starts, kind: Weights) -> dict[tuple[WordTable, int], tuple[int, int]]:
    """Bytes of a student with one layer, and of each further layer, by table and neurons."""
    known, widths = tables(starts.width), neurons(starts.neurons)
    bar = progress("count bytes", total=len(known) + 2 * len(widths), unit=" graphs")

    def measured(table: WordTable, number: int, width: int) -> int:
        bar.update()
        return graph_bytes(starts.blank(table, number, width), kind)

    one = {width: measured(known[0], 1, width) for width in widths}
    two = {width: measured(known[0], min(2, starts.depth), width) for width in widths}
    least = widths[0]
    words = {table: measured(table, 1, least) - one[least] for table in known}
    bar.close()
    return {
        (table, width): (one[width] + words[table], two[width] - one[width])
        for table in known
        for width in widths
    }


def deepest(
    sizes: dict[tuple[WordTable, int], tuple[int, int]], depth: int, most: float
) -> tuple[list[Shape], int]:
    """The shapes that fit and could not have more layers or neurons, and the least size of all."""
    fitting: dict[tuple[WordTable, int], int] = {}
    for (table, width), (first, further) in sizes.items():
        count = 1 + int((most - first) // further) if further else 1
        if first <= most:
            fitting[table, width] = min(depth, count)
    shapes = [
        (table, count, width)
        for (table, width), count in fitting.items()
        if not any(t == table and w > width and n >= count for (t, w), n in fitting.items())
    ]
    return shapes, min(first for first, _ in sizes.values())


def _words(student: StudentConfig) -> str:
    """A shape as settings."""
    shape = student.model_dump(include={"bottleneck", "codes", "layers", "intermediate"})
    return " ".join(f"{key}={value}" for key, value in shape.items() if value is not None)
