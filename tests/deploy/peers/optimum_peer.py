"""Optimum: the graph as sentence-transformers' backend, or a graph of its own making."""

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

data, kind, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
texts = list(json.loads((data / "texts.json").read_text()).values())
folder = data / "portable"
if kind == "backend":
    named = {"file_name": "onnx/model.onnx"}
    model = SentenceTransformer(str(folder), device="cpu", backend="onnx", model_kwargs=named)
    vectors = model.encode(texts)
else:
    from optimum.exporters.onnx import main_export
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as place:
        main_export(folder, output=place, task="feature-extraction", library_name="transformers")
        model = ORTModelForFeatureExtraction.from_pretrained(place)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        vectors = (hidden * mask).sum(1) / mask.sum(1)
about = f"{version('optimum-onnx')}, sentence-transformers {version('sentence-transformers')}"
out.write_text(json.dumps({"version": about, "vectors": np.asarray(vectors).tolist()}))
