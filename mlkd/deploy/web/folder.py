"""The folder of the format ``web``: graph and tokenizer, the page, its runtime and its texts."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from mlkd.config.commands import ExportConfig
from mlkd.deploy.dense import longest, write_description
from mlkd.deploy.exported import INT8, Q4, open_onnx
from mlkd.deploy.formats import Format, Part, write_graphs
from mlkd.deploy.source import Source
from mlkd.deploy.web.inputs import PACKAGES, runtime_of, texts_of
from mlkd.metrics.shorter import shortened
from mlkd.storage.files import write_json

_PAGE = Path(__file__).with_name("page")
INDEX, VECTORS = "search.json", "vectors.bin"
"""Texts, examples of queries and what the page says of the model; their vectors ``(n, d)`` in
int8, row by row, those of the examples last."""
_GRAPHS = {"int8": INT8, "q4": Q4}


def web_format(config: ExportConfig, source: Source) -> Format:
    """A page that runs the graph in a browser.

    The folder is that of ``onnx_int8`` or ``onnx_q4`` as well, and judged as these are. Vectors of
    the texts come from the graph itself; only the query is encoded in the browser.

    Raises:
        UserError: The runtime or the texts are not there or do not fit.
    """
    assert config.web is not None
    web, file = config.web, _GRAPHS[config.web.weights]
    versions, (texts, examples) = runtime_of(web.runtime), texts_of(config, source)

    def write(model: SentenceTransformer, folder: Path) -> None:
        write_description(model, folder)
        write_graphs(model, folder, file, q4=config.q4)
        shutil.copytree(_PAGE, folder, dirs_exist_ok=True)
        _copy_runtime(Path(web.runtime), folder / "runtime")
        vectors = open_onnx(folder, file=file)([text.text for text in (*texts, *examples)])
        (folder / VECTORS).write_bytes(shortened(vectors, "int8").astype(np.int8).tobytes())
        languages = list(dict.fromkeys(text.language for text in texts))
        content = {
            "model": source.name,
            "graph": file,
            "weights": web.weights,
            "longest": longest(model),
            "runtime": versions,
            "languages": languages,
            "examples": [text._asdict() for text in examples],
            "texts": [text.text for text in texts],
            "language": [languages.index(text.language) for text in texts],
        }
        loaded = (file, VECTORS, "tokenizer.json", "runtime/onnxruntime.wasm")
        content["bytes"] = {name: (folder / name).stat().st_size for name in loaded}
        write_json(folder / INDEX, content)

    open_graph = partial(open_onnx, file=file)
    notes = {"texts": len(texts), "runtime": versions}
    return Format(write, (Part(file, open_graph, None, native=False),), notes={"web": notes})


def _copy_runtime(packages: Path, folder: Path) -> None:
    """What the page loads of each package, and its licence."""
    folder.mkdir(exist_ok=True)
    for package in PACKAGES:
        files = dict(package.files)
        if package.licence is not None:
            files[package.licence] = f"LICENSE-{package.name.rpartition('/')[2]}.txt"
        for name, target in files.items():
            shutil.copyfile(packages / package.name / name, folder / target)
