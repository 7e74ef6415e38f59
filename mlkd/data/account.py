"""What became of the rows of a corpus, in words for the user."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from mlkd.config.inputs import DataConfig
from mlkd.data.plan import group_shares
from mlkd.data.rows import UNFINISHED
from mlkd.output.errors import UserError

log = logging.getLogger(__name__)

Counts = Mapping[str, Any]
"""Rows of a corpus in one language direction, as in ``PairStore.counts``."""

_OFTEN = 10
"""Draws of a pair in an epoch above which a small corpus is mentioned."""


def account(config: DataConfig, counts: Sequence[Counts]) -> list[str]:
    """One line a corpus: rows read, rejected by reason, unfinished, duplicates, what is left.

    Args:
        config: What the corpora were read with.
        counts: Of each language direction of a corpus, corpus by corpus.
    """
    lines = []
    for corpus, group in groupby(counts, key=lambda count: str(count["corpus"])):
        directions = list(group)
        pairs = ", ".join(direction_of(count) for count in directions)
        lines.append(f"{corpus} {pairs}: {_told(config, directions)}")
    return lines


def direction_of(count: Counts) -> str:
    """The languages of a direction, as ``en-de``."""
    return f"{count['source_lang']}-{count['target_lang']}"


def left(count: Counts) -> int:
    """Pairs of a direction that train or are held out."""
    return int(count["train"] + count["dev"])


def rejected(count: Counts) -> tuple[Counter[str], Counter[str]]:
    """Bad rows by reason, and unfinished ones, which are normal in translators' files."""
    bad, unfinished = Counter[str](), Counter[str]()
    for reason, number in count["rejected"].items():
        (unfinished if reason in UNFINISHED else bad)[reason] += number
    return bad, unfinished


def by_reason(config: DataConfig, reasons: Counter[str]) -> str:
    """Reasons with their numbers, the most frequent first; a setting that decides is named."""
    return ", ".join(
        f"{reason} {number:,}" + (f": data.max_chars={config.max_chars}" * (reason == "too long"))
        for reason, number in reasons.most_common()
    )


def too_small_for_mixing(config: DataConfig, counts: Sequence[Counts]) -> list[str]:
    """A line for each small group whose pairs are drawn again and again in every epoch."""
    sizes = np.array([count["train"] for count in counts])
    if not sizes.any():
        return []
    times = group_shares(sizes, config.mixing, config.temperature) * sizes.sum()
    times = np.floor(times / np.maximum(sizes, 1)).astype(int)
    return [
        f"{count['corpus']} {direction_of(count)}: data.mixing={config.mixing} draws each of its "
        f"{count['train']:,} pairs {number:,} times an epoch; proportional draws each once, "
        "temperature is between the two"
        for count, number in zip(counts, times, strict=True)
        if number >= _OFTEN
    ]


def several_sources(counts: Sequence[Counts]) -> list[str]:
    """A line where the corpora do not share one source language: the teacher reads that side."""
    sources = sorted({str(count["source_lang"]) for count in counts})
    if len(sources) < 2:
        return []
    return [f"the source side is {', '.join(sources)}: the teacher has to read each of them"]


def tell(config: DataConfig, counts: Sequence[Counts], what: str = "pairs") -> None:
    """Log what became of the rows of each corpus, which are called ``what``."""
    for line in account(config, counts):
        log.info("%s of %s", what, line)
    for count in counts:
        if not left(count):
            log.warning("no %s are left of %s", what, *account(config, [count]))


def check_left(config: DataConfig, counts: Sequence[Counts]) -> None:
    """Look whether something is left to train on and to hold out.

    Raises:
        UserError: It is not; the line says what became of the rows.
    """
    train, dev = (sum(count[name] for count in counts) for name in ("train", "dev"))
    if not train or not dev:
        raise UserError(
            f"data: {train} training and {dev} dev pairs are left; both are needed "
            f"(data.dev_fraction={config.dev_fraction}); {'; '.join(account(config, counts))}"
        )
    trained = {count["target_lang"] for count in counts if count["train"]}
    without = [count for count in counts if count["target_lang"] not in trained]
    if without:
        languages = sorted({count["target_lang"] for count in without})
        raise UserError(
            f"data: no training pairs are left for {', '.join(languages)}; "
            f"{'; '.join(account(config, without))}"
        )


def _told(config: DataConfig, counts: Sequence[Counts]) -> str:
    """The sums over some directions."""
    bad, unfinished, dropped = Counter[str](), Counter[str](), Counter[str]()
    for count in counts:
        for total, part in zip((bad, unfinished), rejected(count), strict=True):
            total.update(part)
        dropped.update(count["dropped"])
    parts = [f"read {sum(count['rows'] for count in counts):,} rows"]
    for name, reasons in (("rejected", bad), ("unfinished", unfinished)):
        if reasons:
            parts.append(f"{name} {reasons.total():,} ({by_reason(config, reasons)})")
    parts += [f"{reason} {number:,}" for reason, number in dropped.most_common()]
    return ", ".join([*parts, f"left {sum(map(left, counts)):,}"])
