"""usearch and faiss, fed in several ways: recall@10 beside exact search in float32."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import faiss
import numpy as np
from usearch.index import Index

data, out = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(data))
from encode import shorter  # noqa: E402

vectors = np.load(data / "vectors.npy")
queries, stored = vectors[:500], vectors[500:]
width = vectors.shape[1]
exact = np.argsort(-(queries @ stored.T), axis=1, kind="stable")[:, :10]


def recall(found):
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]))


def usearch(made, metric, kind):
    index = Index(ndim=width, metric=metric, dtype=kind)
    index.add(np.arange(len(stored)), made(stored))
    return recall(index.search(made(queries), 10, exact=True).keys)


def flat(index, made=lambda rows: rows):
    if not index.is_trained:
        index.train(made(stored))
    index.add(made(stored))
    return recall(index.search(made(queries), 10)[1])


def plain(rows):
    return rows


def int8(rows):
    return shorter(rows, None, "int8")


def coarse(rows):
    return np.rint(127 * rows).astype(np.int8)


def bits(rows):
    return shorter(rows, None, "binary").view(np.uint8)


def scalar(kind):
    return faiss.IndexScalarQuantizer(width, kind, faiss.METRIC_INNER_PRODUCT)


kinds = faiss.ScalarQuantizer
us, fa = f"usearch {version('usearch')}", f"faiss {version('faiss-cpu')}"
right, other = 'vectors of `precision="int8"`', "float32 vectors"
signs = 'vectors of `precision="binary"`'
rows = [
    [us, '`metric="cos", dtype="i8"`', right, width, usearch(int8, "cos", "i8")],
    [us, "the same", "vectors times 127, rounded", width, usearch(coarse, "cos", "i8")],
    [us, "the same", f"{other}, which it casts", width, usearch(plain, "cos", "i8")],
    [us, '`metric="ip", dtype="i8"`', right, width, usearch(int8, "ip", "i8")],
    [us, '`metric="hamming", dtype="b1"`', signs, width // 8, usearch(bits, "hamming", "b1")],
    [fa, "`QT_8bit`, trained", other, width, flat(scalar(kinds.QT_8bit))],
    [fa, "`QT_8bit_direct_signed`", other, width, flat(scalar(kinds.QT_8bit_direct_signed))],
    [fa, "`IndexBinaryFlat`", signs, width // 8, flat(faiss.IndexBinaryFlat(width), bits)],
]
out.write_text(json.dumps(rows))
