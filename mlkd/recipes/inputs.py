"""What has to be there before the first link: data, encoders, the assistant before stage 1."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from mlkd.config.backbone import check_widths, source_folder
from mlkd.config.languages import split_pair
from mlkd.config.schema import TrainConfig
from mlkd.data.pairs import prepare_labelled, prepare_pairs
from mlkd.data.store import PairStore
from mlkd.data.tokens import tokenizer_fingerprint
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.machine import ranks
from mlkd.machine.hardware import device_of
from mlkd.metrics.evaluation import open_encoder_folder
from mlkd.metrics.sets import EvalSet, load_sets, set_sentences
from mlkd.metrics.similarity import cosines
from mlkd.output.errors import UserError
from mlkd.recipes.recipe import Given, links, references
from mlkd.stages import stage_of
from mlkd.storage.files import digest, encoder_fingerprint, remove_leftovers, write_json
from mlkd.storage.lock import Lock
from mlkd.storage.seals import sealed
from mlkd.student.coverage import coverage_of
from mlkd.student.initialise import check_student
from mlkd.student.trim import check_languages
from mlkd.student.vocabulary import assistant_from_teacher
from mlkd.targets.live import own_ids

log = logging.getLogger(__name__)

_FORMAT = 6
"""Version of the assistant before stage 1; a change makes it anew."""
_COMPARED = 64
_SAME_SPACE = 0.5
"""A ready assistant whose mean cosine with the teacher is lower, on so many dev sentences, was
made with another one; unrelated spaces give about 0, a distilled assistant 0.8 or more."""
_VOCABULARY_PAIRS = 150_000
"""At most so many pairs are aligned (about 1.5 GB)."""


@dataclass(frozen=True)
class Prepared:
    """The inputs of a chain."""

    pairs: PairStore
    labelled: dict[str, PairStore]
    """What links train on that train on labelled text, by link."""
    sets: list[EvalSet]
    teacher: Path
    base: Path
    """The assistant before stage 1."""
    source: Path | None
    """What the student copies, if it is a folder of its own."""
    coverage: dict[str, Any]
    """By language what its vocabulary makes of the pairs (see :class:`Coverage`)."""


def prepare(config: TrainConfig) -> Prepared:
    """Find or make the inputs of a chain.

    Raises:
        UserError: One of them cannot be had, or they do not fit each other.
    """
    device_of(config.trainer.accelerator)  # is it there?
    cache = Path(config.output_dir, "cache")
    sets = load_sets(config.eval)
    if not any(s.split == "dev" and s.kind != "classification" for s in sets):
        raise UserError("eval.sets: selection needs a set with split=dev, of kind sts or bitext")
    teacher = open_encoder_folder(config.teacher, config.allow_download, cache)
    # Encoder folders are written by the first process only.
    with ranks.first_ahead(), Lock(cache / "prepare.lock", waiting_for="data preparation"):
        for folder in (cache, *cache.glob("targets-*"), Path(config.output_dir, "runs")):
            remove_leftovers(folder)
        pairs = prepare_pairs(
            config.data, set_sentences(sets), cache, allow_download=config.allow_download
        )
        labelled = _labelled(config, sets, cache)
        if config.student.trim is not None and config.budget_mib is None:
            check_languages("student.trim", config.student.trim, pairs.languages)
        base = _base(config, pairs, teacher, cache)
        assistant = load_folder(base)
        source = source_folder(config.init)
        copied = assistant if source is None else load_folder(source)
        if config.budget_mib is None:  # or it is still to be found
            check_student(backbone_of(copied), config.student, config.data.max_tokens)
        coverage = _coverage(pairs, assistant.tokenizer, cache)
    ready = {"assistant": assistant} if config.assistant.encoder is not None else {}
    if source is not None:
        ready["init.source"] = copied
        _check_tokenizers(config, copied, assistant)
    width = load_folder(teacher).get_embedding_dimension() if ready else None
    for name, encoder in ready.items():
        check_widths(width, name, encoder.get_embedding_dimension())
    _check_sources(sets, pairs)
    if references(config)["assistant"] == Given("base"):
        _check_same_space(config, pairs, teacher, base)
    dev = len(pairs.dev_pairs())
    log.info("data: %d training and %d dev pairs in %s", len(pairs) - dev, dev, pairs.folder)
    return Prepared(pairs, labelled, sets, teacher, base, source, coverage)


def _labelled(config: TrainConfig, sets: list[EvalSet], cache: Path) -> dict[str, PairStore]:
    """Labelled text by link; links that name the same corpora share it."""
    test = set_sentences(item for item in sets if item.split == "test")
    known: dict[tuple[str, ...], PairStore] = {}
    found = {}
    for link in links(config):
        if names := tuple(link.labelled):
            if names not in known:
                known[names] = prepare_labelled(
                    config.data, link.labelled, set_sentences(sets), test, cache
                )
            found[link.name] = known[names]
    return found


def _check_sources(sets: list[EvalSet], pairs: PairStore) -> None:
    """Refuse bitext whose source side the teacher would have to read in another language.

    Raises:
        UserError: The source of a dev set is not that of the pairs.
    """
    sources = {group.source_lang for group in pairs.groups}
    for item in sets:
        wrong = item.source not in sources and item.source in split_pair(item.pair)
        if wrong and (item.kind, item.split) == ("bitext", "dev"):
            raise UserError(
                f"eval.sets.{item.name}.source={item.source}: the teacher reads the source of the "
                f"corpora; allowed: {', '.join(sorted(sources))}"
            )


def _check_tokenizers(
    config: TrainConfig, source: SentenceTransformer, assistant: SentenceTransformer
) -> None:
    """Refuse a source that reads other tokens than the encoders whose layers its copy aims at.

    Raises:
        UserError: A link would compare token states, and the tokenizers are not alike.
    """
    for link in links(config):
        live = stage_of(link.settings).signals(link.settings).live
        if link.trains_student and any(link.inputs[role] != Given("teacher") for role in live):
            try:
                own_ids(source.tokenizer, assistant.tokenizer)
            except UserError as error:
                raise UserError(f"init.source, for the link {link.name}: {error}") from None


def _check_same_space(config: TrainConfig, pairs: PairStore, teacher: Path, base: Path) -> None:
    """Compare a ready assistant's source language with the teacher's: students aim at both in turn.

    Raises:
        UserError: Their vectors have nothing to do with each other.
    """
    sources = pairs.texts(np.unique(pairs.source[pairs.dev_pairs()])[:_COMPARED])
    theirs, ours = (
        FrozenEncoder.open(
            folder, max_tokens=config.data.max_tokens, accelerator=config.trainer.accelerator
        ).encode(sources)
        for folder in (teacher, base)
    )
    if (cosine := float(cosines(theirs, ours).mean())) < _SAME_SPACE:
        raise UserError(
            f"teacher and assistant have different spaces (mean cosine {cosine:.2f}); "
            "choose the teacher that the assistant was made with, or train the assistant "
            "(assistant.train=true)"
        )


def _base(config: TrainConfig, pairs: PairStore, teacher: Path, cache: Path) -> Path:
    """Folder of the assistant before stage 1, made from the teacher unless it is a ready one."""
    if config.assistant.encoder is not None:
        return open_encoder_folder(config.assistant.encoder, config.allow_download, cache)
    vocabulary = config.assistant.vocabulary
    assert vocabulary is not None
    key = [_FORMAT, encoder_fingerprint(teacher), vocabulary.model_dump(), pairs.fingerprint]

    def make(part: Path) -> None:
        log.info("assistant: learn up to %d new pieces from the pairs", vocabulary.size)
        train = pairs.train_pairs()

        # Corpora and languages stand one after the other: a part has to be drawn from all.
        drawn = np.random.default_rng(0).permutation(train)[:_VOCABULARY_PAIRS]
        drawn.sort()
        sides = np.stack([pairs.source[drawn], pairs.translation[drawn]], axis=1)
        keep = vocabulary.keep_teacher
        learned_from = np.unique(pairs.translation[train]) if keep else sides.ravel()

        def sentences() -> Iterator[tuple[str, str]]:
            return ((pairs.languages[pairs.language[i]], pairs.text(i)) for i in learned_from)

        def both() -> Iterator[tuple[str, str]]:
            return ((pairs.text(a), pairs.text(b)) for a, b in sides)

        model = assistant_from_teacher(load_folder(teacher), vocabulary, sentences, both)
        save_folder(model, part)

    return sealed(cache / f"assistant-{digest(key)}", make)


def _coverage(pairs: PairStore, tokenizer: Any, cache: Path) -> dict[str, Any]:
    """How a vocabulary covers each language; the log has a line for each, once."""

    def make(part: Path) -> None:
        found = coverage_of(tokenizer, pairs)
        for language, measured in found.items():
            log.info("vocabulary of the assistant, %s: %s", language, measured)
        write_json(part / "coverage.json", {x: asdict(found[x]) for x in found})

    key = digest([pairs.fingerprint, tokenizer_fingerprint(tokenizer)])
    written = sealed(cache / f"coverage-{key}", make) / "coverage.json"
    coverage: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    return coverage
