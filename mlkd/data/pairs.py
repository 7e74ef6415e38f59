"""Pairs of a configuration: read, cleaned, split and deduplicated once, then opened."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from mlkd.config.inputs import DataConfig
from mlkd.config.labelled import LabelledConfig, task_of
from mlkd.data.account import check_left, several_sources, tell, too_small_for_mixing
from mlkd.data.cleaning import normal_form
from mlkd.data.collect import Collector, CorpusPart
from mlkd.data.compact import compact
from mlkd.data.labelled import labelled_files
from mlkd.data.sources import asked_languages, left_out, source_files
from mlkd.data.store import PairGroup, PairStore
from mlkd.storage.files import digest, file_sha256, known_sha256, write_json
from mlkd.storage.seals import sealed

log = logging.getLogger(__name__)

_FORMAT = 7
"""Version of the files; a change makes every store anew."""
_ANY_LENGTH = 1 << 20
"""Characters of labelled text: long ones are cut at ``data.max_tokens``."""


def prepare_pairs(
    config: DataConfig,
    exclude: Collection[str],
    cache: Path,
    *,
    allow_download: bool = False,
    few: bool = False,
) -> PairStore:
    """Open the pair store of a data configuration, or make it.

    Args:
        config: Corpora, cleaning and splits.
        exclude: Evaluation sentences; pairs with one of them on either side are removed.
        cache: Folder of all caches.
        allow_download: Whether hub datasets may be downloaded.
        few: Whether a split may be empty.

    Raises:
        UserError: A corpus is missing, too dirty or empty, or a split is.
    """
    sources = _sources(config, allow_download)
    excluded = {normal_form(text) for text in exclude} - {""}
    folder = cache / f"pairs-{_key(config, sources, excluded)}"
    store = PairStore.open(
        sealed(folder, lambda part: _write(config, sources, (excluded, excluded), part, cache))
    )
    if not few:
        check_left(config, store.counts)
    tell(config, store.counts)
    for line in too_small_for_mixing(config, store.counts):
        log.warning("pairs of %s", line)
    for line in several_sources(store.counts):
        log.warning("pairs: %s", line)
    return store


def prepare_labelled(
    config: DataConfig,
    corpora: Mapping[str, LabelledConfig],
    exclude: Collection[str],
    exclude_dev: Collection[str],
    cache: Path,
) -> PairStore:
    """The same for labelled corpora, which have one task; a text is both sides of its row.

    Args:
        config: Splits; ``max_chars`` and ``fraction`` are for pairs alone.
        corpora: By their names in ``data.labelled``.
        exclude: Evaluation sentences: training rows with one of them are removed,
        exclude_dev: and held-out rows with one of these, those of the test sets.
        cache: Folder of all caches.

    Raises:
        UserError: A file is missing, too dirty or empty, or a split is.
    """
    config = config.model_copy(update={"max_chars": _ANY_LENGTH, "fraction": 1.0})
    sources = [
        CorpusPart(name, one.language, one.language, [path], labelled=one, split=split)
        for name, one in corpora.items()
        for split, path in labelled_files(name, one, config.root).items()
    ]
    forms = [{normal_form(text) for text in texts} - {""} for texts in (exclude, exclude_dev)]
    excluded = forms[0], forms[1]
    folder = cache / f"labelled-{_key(config, sources, *excluded)}"
    store = PairStore.open(
        sealed(folder, lambda part: _write(config, sources, excluded, part, cache))
    )
    tell(config, store.counts, "labelled text")
    return store


def _sources(config: DataConfig, allow_download: bool) -> list[CorpusPart]:
    """What the configuration reads, corpus by corpus."""
    wanted = asked_languages(config)
    return [
        CorpusPart(
            name,
            corpus.source_of(target),
            target,
            source_files(name, corpus, target, config.root, allow_download=allow_download),
        )
        for name, corpus in config.corpora.items()
        for target in dict.fromkeys(corpus.targets)
        if target in wanted
    ]


def _key(config: DataConfig, sources: list[CorpusPart], *excluded: set[str]) -> str:
    """Hash of what decides the content; files count by what is in them, not by where they are."""
    included = {"max_chars", "max_rejected", "dev_fraction", "fraction"}
    settings = config.model_dump(include=included, mode="json")
    shown = {"format", "codes", "columns", "header", "delimiter", "domain", "domain_column"}
    shown, places = shown | {"max_pairs"}, {"path", "dev_path"}
    files = [
        [
            *(x.corpus, x.source_lang, x.target_lang),
            _shown(config.corpora[x.corpus].model_dump(include=shown, mode="json"))
            if x.labelled is None
            else [_shown(x.labelled.model_dump(exclude=places, mode="json")), x.split],
            [known_sha256(path) for path in x.files],
        ]
        for x in sources
    ]
    return digest([_FORMAT, settings, files, *map(sorted, excluded)])


def _shown(settings: dict[str, Any]) -> dict[str, Any]:
    """Without what stores of text without a column of domains do not have."""
    return {k: v for k, v in settings.items() if k != "domain_column" or v is not None}


def _write(
    config: DataConfig,
    sources: list[CorpusPart],
    excluded: tuple[set[str], set[str]],
    folder: Path,
    cache: Path,
) -> None:
    """Write all files of a pair store."""
    labelled = {x.corpus: x.labelled for x in sources if x.labelled is not None}
    for x in sources if not labelled else ():
        line = left_out(x.corpus, config.corpora[x.corpus], x.target_lang, config.root)
        if line is not None:
            log.warning(line)
    with Collector(config, excluded, folder, cache) as collector:
        for _, group in groupby(enumerate(sources), key=lambda item: item[1].corpus):
            collector.read_corpus(list(group))
    codes = [x.source_lang for x in sources] + [x.target_lang for x in sources]
    languages = list(dict.fromkeys(codes))
    train, dev = compact(folder, sources, languages)
    groups = [asdict(PairGroup(x.corpus, x.source_lang, x.target_lang)) for x in sources]
    counts = [
        group
        | {"rows": x.rows, "train": int(t), "dev": int(d)}
        | {"rejected": x.rejected, "dropped": x.dropped}
        for group, x, t, d in zip(groups, sources, train, dev, strict=True)
    ]
    if labelled or not any(count["train"] + count["dev"] for count in counts):
        check_left(config, counts)
    domains = list(collector.domains)
    names = sorted(p.name for p in folder.iterdir() if p.suffix in {".npy", ".bin"})
    content = {name: file_sha256(folder / name) for name in names}
    of_domains = content.pop("domain.npy")
    task = {"task": asdict(task_of(labelled))} if labelled else {}
    write_json(
        folder / "meta.json",
        {
            "format": _FORMAT,
            "fingerprint": digest([content, languages, groups, *task.values()], length=64),
            "domain_hash": digest([of_domains, domains], length=64),
            "train": int(train.sum()),
            "dev": int(dev.sum()),
            "languages": languages,
            "domains": domains,
            "groups": groups,
            "counts": counts,
            "sizes": {name: (folder / name).stat().st_size for name in names},
        }
        | task,
    )
