#!/bin/bash
# usearch 2.26.6, faiss-cpu 1.15.1: what int8 indexes make of unit vectors that are given as floats.
#
# An index of a byte a number takes float32 vectors without a word, but not every kind can hold those
# of length 1, whose numbers are far below 1. faiss' QT_8bit_direct_signed takes them for integers:
# all become 0 or nearly so, and what is found is chance, without an error. usearch with dtype i8
# multiplies by 127, so that a vector whose largest number is 0.2 uses a fifth of the range. A vector
# times 127 / its own largest number has the same cosines and uses all of it.
#
# Output seen (ten nearest of 2,000 unit vectors of 384 numbers, beside exact search):
#   faiss QT_8bit_direct_signed, floats    0.003
#   faiss QT_8bit, trained, floats         0.996
#   usearch i8 cos, floats                 0.962
#   usearch i8 cos, times 127 / largest    0.997
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet --disable-pip-version-check \
  usearch==2.26.6 faiss-cpu==1.15.1 numpy==2.4.6
cat > "$place/main.py" <<'PYTHON'
import faiss
import numpy as np
from usearch.index import Index

random = np.random.default_rng(0)
vectors = random.normal(size=(2200, 24)) @ random.normal(size=(24, 384))
vectors += 0.5 * random.normal(size=vectors.shape)
vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
queries, stored = vectors[:200], vectors[200:]
exact = np.argsort(-queries @ stored.T, axis=1)[:, :10]


def recall(found):
    return float(np.mean([len({*a} & {*b}) / 10 for a, b in zip(exact, found)]))


def of_faiss(kind):
    index = faiss.IndexScalarQuantizer(384, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(stored)
    index.add(stored)
    return recall(index.search(queries, 10)[1])


def of_usearch(made):
    index = Index(ndim=384, metric="cos", dtype="i8")
    index.add(np.arange(len(stored)), made(stored))
    return recall(index.search(made(queries), 10, exact=True).keys)


def whole_range(rows):
    return np.rint(rows * (127 / np.abs(rows).max(axis=1, keepdims=True))).astype(np.int8)


direct = of_faiss(faiss.ScalarQuantizer.QT_8bit_direct_signed)
trained = of_faiss(faiss.ScalarQuantizer.QT_8bit)
cast, scaled = of_usearch(lambda rows: rows), of_usearch(whole_range)
print(f"faiss QT_8bit_direct_signed, floats    {direct:.3f}")
print(f"faiss QT_8bit, trained, floats         {trained:.3f}")
print(f"usearch i8 cos, floats                 {cast:.3f}")
print(f"usearch i8 cos, times 127 / largest    {scaled:.3f}")
assert direct < 0.05 and trained > 0.98 and scaled > 0.98 and cast < scaled - 0.02
PYTHON
"$place/env/bin/python" "$place/main.py"
