"""What several chains share, made once before they run: links, token store, target vectors."""

from __future__ import annotations

import numpy as np

from mlkd.config.schema import StageName, TrainConfig
from mlkd.data.tokens import tokenise
from mlkd.encoders.folder import load_folder
from mlkd.machine import ranks
from mlkd.recipes.chain import Announce, Chain, open_chain, run_links
from mlkd.recipes.links import links
from mlkd.stages import STAGES
from mlkd.training.reads import batch_plan, dev_pairs, target_sentences, target_vectors


def prepare(config: TrainConfig, upto: StageName | None, announce: Announce | None = None) -> None:
    """Run the links up to ``upto`` (None = no link) and compute all targets of the whole chain.

    The teacher sees every sentence of all stages in one pass, before the first of them.
    """
    names = links(config)
    teacher = [name for name in names if STAGES[name].target_encoder == "teacher"]
    with ranks.joined(config.trainer):
        chain = open_chain(config)
        chain.measure_references()
        if ranks.is_first():
            _targets(chain, teacher)
        run_links(chain, names[: names.index(upto) + 1] if upto else [], announce)
        if ranks.is_first() and ("assistant" not in names or upto is not None):
            for name in names:
                if name not in teacher:
                    _targets(chain, [name])


def _targets(chain: Chain, names: list[StageName]) -> None:
    """Compute the targets of some stages, which have the same target encoder, in one pass."""
    if not names:
        return
    config, pairs = chain.config, chain.pairs
    # That of every link but those of a trimmed student: with its batches of other lengths a cell
    # may ask for a few sentences more.
    tokenizer = load_folder(chain.base).tokenizer
    tokens = tokenise(pairs, tokenizer, config.data.max_tokens, chain.cache)
    dev = dev_pairs(config, pairs, tokens)
    wanted = []
    for name in names:
        plan, steps = batch_plan(config, pairs, tokens, name)
        wanted.append(target_sentences(pairs, name, plan.pairs_until(steps), dev))
    sentences = np.unique(np.concatenate(wanted))
    encoders = {"teacher": chain.teacher, "assistant": chain.assistant}
    target_vectors(config, pairs, chain.cache, encoders, names[0], sentences)
