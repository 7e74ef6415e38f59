"""sentence-transformers, and transformers with pooling by hand, which have to agree."""

import json
import sys
from pathlib import Path

import numpy as np
import sentence_transformers
import transformers
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

data, folder, out = Path(sys.argv[1]), Path(sys.argv[1], sys.argv[2]), Path(sys.argv[3])
texts = list(json.loads((data / "texts.json").read_text()).values())
vectors = SentenceTransformer(str(folder), device="cpu").encode(texts)

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModel.from_pretrained(folder).eval()
batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
hidden = model(**batch).last_hidden_state.detach().numpy()
mask = batch["attention_mask"].numpy()[..., None]
pooled = (hidden * mask).sum(1) / mask.sum(1)
pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
assert np.abs(pooled - unit).max() < 1e-5, np.abs(pooled - unit).max()

assert "mlkd" not in sys.modules
version = f"{sentence_transformers.__version__}, transformers {transformers.__version__}"
out.write_text(json.dumps({"version": version, "vectors": vectors.tolist()}))
