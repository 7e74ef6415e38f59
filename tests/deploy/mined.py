"""What mining finds in the Tatoeba test, alone and among lines without a translation.

``python tests/deploy/mined.py <exported folder> <corpora>`` writes the table of
``mlkd/deploy/README.md``. In the second half as many lines are put among those of each side: train
sentences of STS-B, of which each side has others, so that none of them has a translation.
"""

from __future__ import annotations

import csv
import gzip
import random
import sys
import tempfile
from itertools import islice
from pathlib import Path

from targets import publish

from mlkd.config.commands import MineConfig
from mlkd.deploy.mining import mine_pairs, open_encoder
from mlkd.metrics.bitext import retrieval

CODES = {"de": "deu", "es": "spa", "fr": "fra", "it": "ita", "nl": "nld"}
THRESHOLDS = (None, 1.05, 1.1, 1.2)
Pairs = list[tuple[str, str]]


def columns(path: Path) -> Pairs:
    """The first two columns of a packed file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        cells = (line.rstrip("\n").split("\t") for line in file)
        return [(" ".join(row[0].split()), " ".join(row[1].split())) for row in cells]


def mined(model: str, left: list[str], right: list[str]) -> list[tuple[float, str, str]]:
    """Score, source and target of each line of a shuffled text."""
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place, name) for name in ("a.txt", "b.txt", "pairs.tsv")]
        for file, texts in zip(files, (left, right), strict=False):
            shuffled = random.Random(0).sample(texts, len(texts))
            file.write_text("\n".join(shuffled), encoding="utf-8")
        given = [str(file) for file in files]
        mine_pairs(MineConfig(texts=given[:2], model=model, output=given[2]))
        with files[2].open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            next(rows)
            return [(float(row[0]), row[3], row[4]) for row in rows]


def language(model: str, corpora: Path, name: str) -> list[str]:
    """The cells of a line: nearest neighbours and mining alone, then shares by threshold."""
    pairs = columns(corpora / f"tatoeba_test/eng-{CODES[name]}.tsv.gz")
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    encode = open_encoder(model)
    near = retrieval(encode(left), encode(right), sentences=(left, right))["forward"]
    correct, wanted = set(pairs), len({*left})
    alone = mined(model, left, right)
    found = [f"{near:.1f}", f"{100 * sum(row[1:] in correct for row in alone) / wanted:.1f}"]
    english, other = (
        [text for row in columns(corpora / f"stsb_multi_mt/stsb-{at}-train.tsv.gz") for text in row]
        for at in ("en", name)
    )
    more = (
        [*islice(dict.fromkeys(english[-4000:]), wanted)],
        [*islice(dict.fromkeys(other), wanted)],
    )
    among = mined(model, left + more[0], right + more[1])
    for least in THRESHOLDS:
        kept = [row for row in among if least is None or row[0] >= least]
        right_ones = sum(row[1:] in correct for row in kept)
        found.append(f"{100 * right_ones / len(kept):.1f} / {100 * right_ones / wanted:.1f}")
    return found


def table(model: str, corpora: Path) -> str:
    """A line for each language."""
    heads = ["all" if least is None else f"from {least}" for least in THRESHOLDS]
    lines = [f"| language | nearest | mined | {' | '.join(heads)} |"]
    lines.append("|:--|" + "--:|" * (2 + len(heads)))
    lines += [f"| {name} | {' | '.join(language(model, corpora, name))} |" for name in CODES]
    return "\n".join(lines)


if __name__ == "__main__":
    publish("mined", table(sys.argv[1], Path(sys.argv[2])))
