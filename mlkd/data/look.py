"""A look at the pairs before hours of training: what is there, and does it look right?"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import astuple, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from mlkd.config.inputs import DataConfig
from mlkd.data.account import direction_of
from mlkd.data.cleaning import normal_form
from mlkd.data.identify import can_tell, other_languages
from mlkd.data.pairs import prepare_pairs
from mlkd.data.store import PairStore
from mlkd.output.errors import UserError
from mlkd.output.progress import progress
from mlkd.storage.files import replacing

_LOOKED_AT = 2_000
"""Pairs of a group, drawn at random, whose text is looked at."""
_CHUNK = 10_000
_WRONG = 0.1
"""Share of sentences in another language above which a group is pointed out."""

TSV_HEADER = ("source", "target", "source_lang", "target_lang", "corpus", "domain")


@dataclass(frozen=True)
class SideLook:
    """The sentences of one language in a group.

    Attributes:
        language: What they are said to be.
        chars: Median and 95th percentile of their characters.
        otherwise: Share (0 to 1) that looks like another language; None where nobody can tell.
        languages: How many sentences look like each other language.
    """

    language: str
    chars: tuple[int, int]
    otherwise: float | None
    languages: Counter[str]


@dataclass(frozen=True)
class Shown:
    """A pair with its labels, in the order of a row of the TSV file."""

    source: str
    target: str
    source_lang: str
    target_lang: str
    corpus: str
    domain: str


@dataclass(frozen=True)
class GroupLook:
    """One corpus in one language direction.

    Attributes:
        count: What became of its rows, as in ``PairStore.counts``.
        sides: Source and translation; None where no pair is left.
        equal: Share (0 to 1) of pairs whose sides are the same but for case and punctuation.
    """

    count: dict[str, Any]
    sides: tuple[SideLook, SideLook] | None
    equal: float


@dataclass(frozen=True)
class Look:
    """What a training would read.

    Attributes:
        config: What was asked for.
        store: The pairs.
        groups: One entry a corpus and language direction.
        sample: Pairs drawn evenly from the groups.
        warnings: Lines about groups whose text looks wrong.
        stops: Why a training would stop, if it would.
    """

    config: DataConfig
    store: PairStore
    groups: list[GroupLook]
    sample: list[Shown]
    warnings: list[str]
    stops: str | None


def look_at(
    config: DataConfig,
    cache: Path,
    *,
    exclude: Collection[str] = (),
    show: int = 20,
    output: Path | None = None,
    allow_download: bool = False,
) -> Look:
    """Read and clean the pairs as a training would, and look at them.

    Too many bad rows or too few pairs, at which a training would stop, are looked at nevertheless.

    Args:
        config: Corpora, cleaning and splits.
        cache: Folder of all caches; a training with the same data and evaluation sets finds the
            pairs there.
        exclude: Evaluation sentences, which training must not see.
        show: Pairs to draw as a sample.
        output: TSV file for all cleaned pairs, with a header; packed if it ends in ``.gz``.
        allow_download: Whether hub datasets may be downloaded.

    Raises:
        UserError: A corpus is missing, no text or empty, or ``output`` cannot be written.
    """
    stops = None
    try:
        store = prepare_pairs(config, exclude, cache, allow_download=allow_download)
    except UserError as error:
        lenient = config.model_copy(update={"max_rejected": 1.0})
        stops = str(error)
        try:
            store = prepare_pairs(lenient, exclude, cache, allow_download=allow_download, few=True)
        except UserError:
            raise error from None
    groups, shown = [], []
    bar = progress("look at the text", total=len(store.groups), unit=" groups")
    for number in range(len(store.groups)):
        members = np.flatnonzero(store.group == number)
        shown.append(_drawn(members, show, (1, number)))
        groups.append(
            _look_at_group(store, number, np.sort(_drawn(members, _LOOKED_AT, (0, number))))
        )
        bar.update()
    bar.close()
    if output is not None:
        write_tsv(store, output)
    sample = list(_sample(store, shown, show))
    warnings = [line for found in groups for line in _warnings(found)]
    return Look(config, store, groups, sample, warnings, stops)


def write_tsv(store: PairStore, path: Path) -> None:
    """Write all pairs as UTF-8 lines of :data:`TSV_HEADER`; packed if the path ends in ``.gz``.

    Raises:
        UserError: It cannot be written.
    """
    bar = progress(f"write {path.name}", total=len(store), unit=" pairs")
    with replacing(path) as part, part.open("wb") as raw, packed(path, raw) as file:
        file.write(("\t".join(TSV_HEADER) + "\n").encode())
        for start in range(0, len(store), _CHUNK):
            chosen = np.arange(start, min(start + _CHUNK, len(store)))
            for pair in _shown(store, chosen):
                file.write(("\t".join(astuple(pair)) + "\n").encode())
            bar.update(len(chosen))
    bar.close()


def packed(path: Path, raw: BinaryIO) -> BinaryIO:
    """What to write to; a packed file says nothing of its name and time."""
    if path.suffix != ".gz":
        return raw
    return cast(BinaryIO, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0))


def _shown(store: PairStore, chosen: np.ndarray) -> Iterator[Shown]:
    sources, targets = store.texts(store.source[chosen]), store.texts(store.translation[chosen])
    for index, source, target in zip(chosen, sources, targets, strict=True):
        group = store.groups[store.group[index]]
        domain = store.domains[store.domain[index]]
        yield Shown(source, target, group.source_lang, group.target_lang, group.corpus, domain)


def _drawn(members: np.ndarray, number: int, seed: tuple[int, int]) -> np.ndarray:
    """At most so many of the members, in random order."""
    generator = np.random.default_rng(seed)
    return members[generator.choice(len(members), min(number, len(members)), replace=False)]


def _sample(store: PairStore, drawn: list[np.ndarray], number: int) -> Iterator[Shown]:
    """Pairs of each group in turn until there are so many."""
    turns = zip_longest(*(group.tolist() for group in drawn))
    found = [index for turn in turns for index in turn if index is not None]
    return _shown(store, np.sort(np.array(found[:number], int)))


def _look_at_group(store: PairStore, number: int, drawn: np.ndarray) -> GroupLook:
    count = store.counts[number]
    if not len(drawn):
        return GroupLook(count, None, 0.0)
    texts = store.texts(store.source[drawn]), store.texts(store.translation[drawn])
    equal = np.mean([normal_form(a) == normal_form(b) for a, b in zip(*texts, strict=True)])
    source, target = (
        _side(count[f"{name}_lang"], side)
        for name, side in zip(("source", "target"), texts, strict=True)
    )
    return GroupLook(count, (source, target), float(equal))


def _side(language: str, texts: list[str]) -> SideLook:
    middle, long = np.percentile([len(text) for text in texts], (50, 95)).astype(int).tolist()
    judged, others = other_languages(texts, language) if can_tell(language) else (0, Counter[str]())
    share = others.total() / judged if judged else None
    return SideLook(language, (middle, long), share, others)


def _warnings(group: GroupLook) -> Iterator[str]:
    for side in group.sides or ():
        if side.otherwise is not None and side.otherwise > _WRONG:
            (other, _), *_ = side.languages.most_common(1)
            yield (
                f"{group.count['corpus']} {direction_of(group.count)}: {side.otherwise:.0%} of the "
                f"{side.language} sentences look like another language, mostly {other}"
            )
