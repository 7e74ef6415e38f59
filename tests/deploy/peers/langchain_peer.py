"""LangChain: documents, and queries one by one, which have to agree."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from langchain_huggingface import HuggingFaceEmbeddings

data, folder, out = Path(sys.argv[1]), Path(sys.argv[1], sys.argv[2]), Path(sys.argv[3])
texts = list(json.loads((data / "texts.json").read_text()).values())
model = HuggingFaceEmbeddings(model_name=str(folder), model_kwargs={"device": "cpu"})
vectors = model.embed_documents(texts)
queries = [model.embed_query(text) for text in texts]
# It writes spaces for line breaks, which are the same to the tokenizer.
assert np.abs(np.array(queries) - np.array(vectors)).max() < 1e-5
out.write_text(json.dumps({"version": version("langchain-huggingface"), "vectors": vectors}))
