"""What several chains share, made once before they run: links, token store, target vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlkd.config.schema import TrainConfig
from mlkd.data.tokens import tokenise
from mlkd.encoders.folder import load_folder
from mlkd.machine import ranks
from mlkd.output.errors import UserError
from mlkd.recipes.chain import Chain, open_chain
from mlkd.recipes.recipe import Link, links
from mlkd.recipes.run import Announce, run_links
from mlkd.stages import stage_of
from mlkd.stages.signals import Vectors
from mlkd.training.reads import Reads


def run_shared(config: TrainConfig, upto: str | None, announce: Announce | None = None) -> None:
    """Run the links up to ``upto`` (None = no link) and compute the targets of the whole chain.

    Each target encoder sees the sentences of all links in one pass, as soon as it is there.
    """
    wanted = links(config)
    with ranks.join_ranks(config.trainer):
        chain = open_chain(config)
        chain.measure_references()
        if ranks.is_first():
            _targets(chain, wanted)
        if upto is not None:
            names = [link.name for link in wanted]
            run_links(chain, wanted[: names.index(upto) + 1], announce)
            if ranks.is_first():
                _targets(chain, wanted)


def _targets(chain: Chain, wanted: Sequence[Link]) -> None:
    """Compute the vectors that links read of encoders that are there by now."""
    # The tokenizer of every link but those of a trimmed student: with its batches of other lengths
    # a cell may ask for a few sentences more.
    tokenizer = load_folder(chain.given["base"]).tokenizer
    tokens = tokenise(chain.pairs, tokenizer, chain.config.data.max_tokens, chain.cache)
    asked: dict[tuple[Path, bool], list[tuple[Reads, Vectors, np.ndarray]]] = {}
    for link in wanted:
        vectors, reads = stage_of(link.settings).signals(link.settings).vectors, chain.reads(link)
        if vectors is None or link.labelled or vectors.role not in reads.encoders:
            continue
        try:
            plan, steps = reads.batch_plan(tokens)
        except UserError:  # its own cell says so, and others may do better
            continue
        sentences = reads.sentences(vectors, plan.pairs_until(steps), reads.dev_pairs(tokens))
        encoder = reads.encoders[vectors.role].folder, vectors.layers
        asked.setdefault(encoder, []).append((reads, vectors, sentences))
    for several in asked.values():
        reads, vectors, _ = several[0]
        reads.targets(vectors, np.unique(np.concatenate([found for *_, found in several])))
