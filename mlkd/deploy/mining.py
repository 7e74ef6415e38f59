"""Mining: the best translation of each line of one text among the lines of another.

The score is the ratio margin of Artetxe and Schwenk (2019): the cosine of a pair, divided by the
mean cosine of the two lines with their k nearest neighbours in the other text. A line that is near
to everything does not win by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlkd.config.commands import MineConfig
from mlkd.config.paths import encoder_at
from mlkd.data.cleaning import is_blank
from mlkd.data.look import packed
from mlkd.data.rows import lines
from mlkd.deploy.exported import exported, open_graph
from mlkd.metrics.scoring import Encode
from mlkd.metrics.similarity import unit
from mlkd.output.errors import UserError
from mlkd.output.extras import need
from mlkd.output.progress import progress
from mlkd.storage.files import reason_of, replacing

HEADER = ("score", "source_line", "target_line", "source", "target")
"""Columns of the file of pairs."""

LEAST_MEAN = 0.01
"""Least mean that a cosine is divided by: where neighbours are not alike at all, a ratio to their
cosines would grow beyond all bounds or change its sign."""
_TIE = 1e-6
"""Scores that are nearer to each other are equal: sums in float32 depend on the block."""
_ENCODED = 4096
"""Lines that are encoded at once."""

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class DistinctLines:
    """What is compared of a text: each distinct line once.

    Attributes:
        texts: Lines, with single spaces for white space.
        numbers: Where each stands first, from 1.
        lines: All lines of the file.
        empty: Lines in which nothing can be read.
        duplicates: Lines that came before.
        unreadable: Lines that are not UTF-8, hold NUL or are longer than 1 MiB.
    """

    texts: list[str]
    numbers: list[int]
    lines: int
    empty: int
    duplicates: int
    unreadable: int


@dataclass(frozen=True)
class Mined:
    """What was compared, and how many pairs were written."""

    sides: tuple[DistinctLines, DistinctLines]
    pairs: int


def mine_pairs(config: MineConfig) -> Mined:
    """Write the best translation of each line of the first text among those of the second.

    The vectors of both texts are held in memory, 4 bytes a coordinate; of their cosines
    only a block is.

    Raises:
        UserError: A file or the encoder cannot be read, a text has no lines, or the output cannot
            be written or is one of the texts.
    """
    output = Path(config.output)
    if output.resolve() in {Path(text).resolve() for text in config.texts}:
        raise UserError(f"output={output}: one of the texts; give another file")
    first, second = (read(Path(text)) for text in config.texts)
    encode = open_encoder(config.model)
    try:  # now, not after hours
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={output}: cannot be written ({reason_of(error)})") from None
    left, right = (
        _encoded(encode, side.texts, f"encode {Path(name).name}")
        for name, side in zip(config.texts, (first, second), strict=True)
    )
    found, scores = best_translations(left, right, config.neighbours, config.block)
    order = np.argsort(-scores, kind="stable")
    if config.threshold is not None:
        order = order[scores[order] >= config.threshold]
    with replacing(output) as part, part.open("wb") as raw, packed(output, raw) as file:
        file.write(("\t".join(HEADER) + "\n").encode())
        for i in order:
            j = found[i]
            cells = f"{scores[i]:.6f}", str(first.numbers[i]), str(second.numbers[j])
            file.write("\t".join((*cells, first.texts[i], second.texts[j])).encode() + b"\n")
    return Mined((first, second), len(order))


def read(path: Path) -> DistinctLines:
    """The distinct lines of a text file.

    Raises:
        UserError: There is no such file, it is no text, or no line is left.
    """
    if not path.exists() or path.is_dir():
        raise UserError(f"{path}: no such file; give two text files, a sentence a line")
    places: dict[str, int] = {}
    number = empty = duplicates = unreadable = 0
    for number, (_, line) in enumerate(lines(path), start=1):
        if not isinstance(line, str):
            unreadable += 1
        elif is_blank(line):
            empty += 1
        elif places.setdefault(" ".join(line.split()), number) != number:
            duplicates += 1
    if not places:
        raise UserError(f"{path}: no lines to compare ({empty} empty, {unreadable} unreadable)")
    return DistinctLines(list(places), list(places.values()), number, empty, duplicates, unreadable)


def open_encoder(model: str) -> Encode:
    """``encode`` of an exported folder, a run, a student or a sentence-transformers folder.

    Raises:
        UserError: It is none of these, is damaged, or a package is missing.
    """
    folder = encoder_at(model)
    if (graph := exported(folder)) is not None:
        need(["onnxruntime"], "export", f"model={model}")
        return open_graph(graph)
    if not (folder / "modules.json").is_file():
        raise UserError(
            f"model={model}: give an exported folder or an .onnx file in it, a student folder, the "
            "folder of a finished run, or a sentence-transformers folder"
        )
    from mlkd.deploy.formats import encoder
    from mlkd.encoders.folder import load_folder
    from mlkd.machine.hardware import device_of

    return encoder(load_folder(folder).to(device_of("auto")))


def best_translations(
    left: Matrix, right: Matrix, neighbours: int, block: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Row of ``right`` with the highest margin for each row of ``left``, and that margin.

    Every row is a candidate, not only the nearest ones. Among equal margins the first row counts.

    Args:
        left: ``(n, d)`` unit vectors.
        right: ``(m, d)`` unit vectors, m > 0.
        neighbours: Nearest rows whose mean cosine counts; all, where there are fewer.
        block: Rows of either side that are compared at once.
    """
    from_left, from_right = _mean_cosines(left, right, neighbours, block)
    found = np.zeros(len(left), np.int64)
    best = np.full(len(left), -np.inf)
    bar = progress("find translations", total=len(left), unit=" lines")
    for rows in _blocks(len(left), block):
        here = np.arange(rows.stop - rows.start)
        for columns in _blocks(len(right), block):
            mean = (from_left[rows, None] + from_right[columns]) / 2
            margin = (left[rows] @ right[columns].T) / np.maximum(mean, LEAST_MEAN)
            first = (margin >= margin.max(axis=1, keepdims=True) - _TIE).argmax(axis=1)
            value = margin[here, first]
            better = value > best[rows] + _TIE
            found[rows][better] = first[better] + columns.start
            best[rows][better] = value[better]
        bar.update(len(here))
    bar.close()
    return found, best


def _mean_cosines(
    left: Matrix, right: Matrix, neighbours: int, block: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean cosine of each row ``(n,)`` and ``(m,)`` with its nearest ones on the other side."""
    near_left = np.full((len(left), min(neighbours, len(right))), -np.inf, np.float32)
    near_right = np.full((len(right), min(neighbours, len(left))), -np.inf, np.float32)
    bar = progress("find neighbours", total=len(left), unit=" lines")
    for rows in _blocks(len(left), block):
        for columns in _blocks(len(right), block):
            cosines = left[rows] @ right[columns].T
            near_left[rows] = _highest(near_left[rows], cosines)
            near_right[columns] = _highest(near_right[columns], cosines.T)
        bar.update(rows.stop - rows.start)
    bar.close()
    return near_left.mean(axis=1, dtype=np.float64), near_right.mean(axis=1, dtype=np.float64)


def _highest(known: Matrix, more: Matrix) -> Matrix:
    """The highest of each row ``(n, k)`` of those known ``(n, k)`` and more ``(n, block)``."""
    count = known.shape[1]
    return np.partition(np.hstack([known, more]), -count, axis=1)[:, -count:]


def _blocks(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _encoded(encode: Encode, texts: Sequence[str], description: str) -> Matrix:
    """Unit vectors ``(n, d)``; zero where the encoder gives none."""
    parts, rest = [], iter(texts)
    bar = progress(description, total=len(texts), unit=" lines")
    while some := list(islice(rest, _ENCODED)):
        parts.append(unit(encode(some)).astype(np.float32))
        bar.update(len(some))
    bar.close()
    return np.concatenate(parts)
