"""ChromaDB with its embedding function for sentence-transformers, in a collection."""

import json
import sys
from pathlib import Path

import chromadb
from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

data, folder, out = Path(sys.argv[1]), Path(sys.argv[1], sys.argv[2]), Path(sys.argv[3])
texts = list(json.loads((data / "texts.json").read_text()).values())
embed = SentenceTransformerEmbeddingFunction(model_name=str(folder), device="cpu")
client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
collection = client.create_collection("texts", embedding_function=embed)
ids = [f"{i:03}" for i in range(len(texts))]
collection.add(ids=ids, documents=texts)
stored = collection.get(ids=ids, include=["embeddings"])
vectors = dict(zip(stored["ids"], stored["embeddings"], strict=True))
nearest = collection.query(query_texts=texts[:1], n_results=1)["documents"]
assert nearest == [texts[:1]], nearest
rows = [list(map(float, vectors[i])) for i in ids]
out.write_text(json.dumps({"version": chromadb.__version__, "vectors": rows}))
