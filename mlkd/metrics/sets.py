"""Evaluation sets: sentence pairs with gold scores (STS) or without (bitext), texts with labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlkd.config.evaluation import EvalConfig, EvalSetConfig
from mlkd.config.languages import fill_languages, split_pair
from mlkd.config.paths import user_path
from mlkd.data.cleaning import is_blank
from mlkd.metrics.set_files import SetTable, gold_scores, read_demo, read_requests, set_lines
from mlkd.output.errors import UserError
from mlkd.storage.files import digest

_SHOWN, _LONGEST = 10, 40
"""Values of a column that a refusal names, and characters of each."""


@dataclass(frozen=True, eq=False)
class EvalSet:
    """The items of one evaluation set in one language pair.

    Attributes:
        name: Key of the set in ``eval.sets``.
        kind: ``sts`` (graded similarity), ``bitext`` (row i of ``right`` translates ``left``) or
            ``classification`` (both are one text).
        split: Only ``dev`` may select.
        pair: Languages of ``left`` and ``right``, as ``en-de``.
        left: N sentences.
        right: N sentences.
        scores: (N,) float64 gold similarities of an STS set, indices of the labels of a
            classification, else None.
        source: The language that others are paired with, which the teacher reads.
        labels: Of a classification.
        domain: Of its texts, which models with a head a domain classify by that one.
    """

    name: str
    kind: Literal["sts", "bitext", "classification"]
    split: Literal["dev", "test"]
    pair: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    scores: NDArray[np.float64] | None
    source: str = "en"
    labels: tuple[str, ...] = ()
    domain: str | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.left) == len(self.right):
            raise ValueError(
                f"{self.name} {self.pair}: {len(self.left)} and {len(self.right)} rows"
            )
        if (self.kind == "bitext") != (self.scores is None):
            raise ValueError(f"{self.name} {self.pair}: scores belong to sts, and only there")
        if self.scores is not None and not (
            self.scores.shape == (len(self.left),) and np.isfinite(self.scores).all()
        ):
            raise ValueError(f"{self.name} {self.pair}: needs one finite score a row")

    @cached_property
    def content(self) -> str:
        """Hash of the sentences and gold scores."""
        gold = None if self.scores is None else self.scores.tolist()
        domain = [] if self.domain is None else [{"domain": self.domain}]
        return digest([self.left, self.right, gold, *self.labels, *domain])


def load_sets(config: EvalConfig) -> list[EvalSet]:
    """Read every set of a configuration, one ``EvalSet`` a language pair.

    Args:
        config: The sets and the folder that relative paths start from.

    Returns:
        The sets in the order of the configuration.

    Raises:
        UserError: A file is missing or malformed, a configuration cannot be met, or a dev set
            is the same as a test set.
    """
    sets = [item for name, one in config.sets.items() for item in _load(name, one, config.root)]
    test = {(item.left, item.right): item for item in sets if item.split == "test"}
    for item in sets:
        twin = test.get((item.left, item.right))
        if item.split == "dev" and twin is not None:
            raise UserError(
                f"eval.sets.{item.name} (dev) and eval.sets.{twin.name} (test) hold the same "
                f"{item.pair} items: select on dev, report on test"
            )
    return sets


def first_pairs(sets: Iterable[EvalSet], most: int | None) -> list[EvalSet]:
    """The sets with at most so many pairs each, the first ones; None = all."""
    return [
        replace(
            item,
            left=item.left[:most],
            right=item.right[:most],
            scores=None if item.scores is None else item.scores[:most],
        )
        for item in sets
    ]


def set_sentences(sets: Iterable[EvalSet]) -> set[str]:
    """Every sentence of the sets, of both sides: none of them may be trained on."""
    return {sentence for item in sets for sentence in (*item.left, *item.right)}


def _load(name: str, config: EvalSetConfig, root: str | None) -> list[EvalSet]:
    key = f"eval.sets.{name}"
    if config.kind == "classification":
        return list(_classified(name, key, config, root))
    pairs = _pairs(key, config)
    if config.format == "tsv":
        _check_layout(key, config, pairs)

    @cache
    def table(a: str, b: str, lang: str) -> SetTable:
        if config.format == "demo":
            return read_demo(key, config, a, b)
        path = fill_languages(config.path, {"a": a, "b": b, "lang": lang}, config.codes)
        return _read_tsv(key, config, Path(root or "", user_path(path)))

    alone = _file_a_language(config)
    sets = []
    for pair in pairs:
        a, b = split_pair(pair)
        if alone and config.kind == "sts":  # each file holds both sentences of an item
            (left_path, left), (path, right) = table(a, a, a), table(b, b, b)
        else:
            (left_path, left), (path, right) = table(a, b, a if alone else b), table(a, b, b)
        if len(left) != len(right):
            raise UserError(f"{path}: {len(right)} rows, but {left_path} has {len(left)}")
        if config.where and [*left] != [*right]:
            other = next(n for n, m in zip(left, right, strict=True) if n != m)
            raise UserError(
                f"{path}: other rows are as {key}.where says than in {left_path}, as row {other}; "
                "row i must be the same item in every language"
            )
        gold = None
        if config.kind == "sts":
            gold = gold_scores(path, right, config)
            differs = np.flatnonzero(gold != gold_scores(left_path, left, config))
            if differs.size:
                line = list(right)[differs[0]]
                raise UserError(
                    f"{path}:{line}: score {right[line][2]} differs from that of the same row in "
                    f"{left_path}; row i must be the same item in every language"
                )
        second = 0 if alone and config.kind == "bitext" else 1
        sides = (
            tuple(row[0] for row in left.values()),
            tuple(row[second] for row in right.values()),
        )
        sets.append(EvalSet(name, config.kind, config.split, pair, *sides, gold, config.source))
    return sets


def _classified(name: str, key: str, config: EvalSetConfig, root: str | None) -> Iterator[EvalSet]:
    """The sets of a classification, one a language; its labels are names."""
    languages = list(dict.fromkeys(config.languages))
    wanted = {"lang"} if len(languages) > 1 else _fields(config)
    if not languages or (config.format == "tsv" and not (_fields(config) == wanted <= {"lang"})):
        raise UserError(f"{key}: give languages, and {{lang}} in path for several")
    if config.columns is not None and (len(config.columns) != 2 or min(config.columns) < 0):
        raise UserError(f"{key}.columns={list(config.columns)}: classification has 2 of >= 0")
    for language in languages:
        if config.format == "demo":
            path, rows = read_requests(key, config, language)
        else:
            place = fill_languages(config.path, {"lang": language}, config.codes)
            path, rows = _read_tsv(key, config, Path(root or "", user_path(place)))
        for number, (_, label) in rows.items():
            if label not in config.labels:
                allowed = ", ".join(config.labels)
                raise UserError(f"{path}:{number}: label {label!r}; allowed: {allowed}")
        texts = tuple(text for text, _ in rows.values())
        gold = np.array([config.labels.index(label) for _, label in rows.values()], float)
        pair = f"{language}-{language}"
        about = config.source, tuple(config.labels), config.domain
        yield EvalSet(name, config.kind, config.split, pair, texts, texts, gold, *about)


def _pairs(key: str, config: EvalSetConfig) -> list[str]:
    """The language pairs of a set: those of the configuration, or the default ones."""
    languages, source = list(dict.fromkeys(config.languages)), config.source
    if config.pairs is not None:
        known = {*languages, source} if config.kind == "bitext" else set(languages)
        for pair in config.pairs:
            if languages and not known.issuperset(split_pair(pair)):
                raise UserError(f"{key}.pairs: {pair} is not made of {', '.join(sorted(known))}")
        pairs = list(dict.fromkeys(config.pairs))
    else:
        pairs = [f"{language}-{language}" for language in languages if config.kind == "sts"]
        if config.kind == "bitext" or source in languages:
            pairs += [f"{source}-{language}" for language in languages if language != source]
    if not pairs:
        raise UserError(f"{key}: give languages or pairs")
    return pairs


def _fields(config: EvalSetConfig) -> set[str]:
    """Placeholders of the path."""
    return set(re.findall(r"{(.*?)}", config.path))


def _file_a_language(config: EvalSetConfig) -> bool:
    """Whether a file (of the demo: a column) holds one language.

    Of STS it has both sentences of an item, of bitext the one.
    """
    if config.format == "demo" or config.kind == "sts":
        return config.kind == "sts" and (config.format == "demo" or "lang" in _fields(config))
    one_column = config.columns is not None and len(config.columns) == 1
    return "lang" in _fields(config) and (one_column or len(_fields(config)) > 1)


def _width(config: EvalSetConfig) -> int:
    """Cells of a row."""
    if config.kind == "sts":
        return 3
    return 1 if _file_a_language(config) else 2


def _check_layout(key: str, config: EvalSetConfig, pairs: list[str]) -> None:
    """Refuse columns and paths that cannot hold the pairs of a TSV set."""
    fields, alone = _fields(config), _file_a_language(config)
    allowed = [{"lang"}, {"a", "b"}, {"pair"}]
    if config.kind == "bitext":
        allowed += [{"lang", "a", "b"}, {"lang", "pair"}]
    if not config.path or (fields not in allowed and (fields or len(pairs) > 1)):
        raise UserError(
            f"{key}.path={config.path!r}: needs {{lang}}, or {{a}} and {{b}}, or {{pair}}"
        )
    width = _width(config)
    if config.columns is not None and (len(config.columns) != width or min(config.columns) < 0):
        what = f"{config.kind} with a file a language" if width == 1 else config.kind
        raise UserError(f"{key}.columns={list(config.columns)}: {what} has {width} of >= 0")
    other = [pair for pair in pairs if split_pair(pair)[0] != config.source]
    if config.kind == "bitext" and "lang" in fields and not alone and other:
        raise UserError(
            f"{key}.path={config.path!r}: {other[0]} needs {{a}} and {{b}}, or columns=[0] "
            "for a file a language"
        )


def _read_tsv(key: str, config: EvalSetConfig, path: Path) -> SetTable:
    columns = config.columns or tuple(range(_width(config)))
    most, exactly = max([*columns, *config.where]), config.columns is None
    wanted = str(len(columns)) if exactly else f"at least {most + 1}"
    rows: dict[int, list[str]] = {}
    others: dict[int, set[str]] = {column: set() for column in config.where}
    for number, cells in set_lines(key, path):
        if number == 1 and config.header:
            continue
        if len(cells) <= most or (exactly and len(cells) != len(columns)):
            raise UserError(
                f"{path}:{number}: {len(cells)} tab-separated columns, not {wanted}; "
                f"{key}.columns picks others"
            )
        if any(cells[column] != value for column, value in config.where.items()):
            for column, found in others.items():
                found.add(cells[column][:_LONGEST])
            continue
        rows[number] = [cells[column] for column in columns]
        if any(map(is_blank, rows[number][:2])):
            raise UserError(f"{path}:{number}: empty sentence; both sides need text")
    if not rows and any(others.values()):
        there = "; ".join(
            f"in column {column} stands {', '.join(sorted(found)[:_SHOWN])}"
            f"{', ...' * (len(found) > _SHOWN)}"
            for column, found in others.items()
        )
        raise UserError(f"{path}: no row is as {key}.where says; {there}")
    if not rows:
        raise UserError(f"{path}: no rows; an evaluation set needs at least one")
    return path, rows
