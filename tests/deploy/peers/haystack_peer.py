"""Haystack: documents in a store, and a query that finds its own."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from haystack import Document
from haystack.components.retrievers import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice
from haystack_integrations.components.embedders.sentence_transformers import (
    SentenceTransformersDocumentEmbedder,
    SentenceTransformersTextEmbedder,
)

data, folder, out = Path(sys.argv[1]), Path(sys.argv[1], sys.argv[2]), Path(sys.argv[3])
texts = list(json.loads((data / "texts.json").read_text()).values())
cpu = ComponentDevice.from_str("cpu")
embed = SentenceTransformersDocumentEmbedder(model=str(folder), device=cpu, progress_bar=False)
ask = SentenceTransformersTextEmbedder(model=str(folder), device=cpu, progress_bar=False)
for component in (embed, ask):
    component.warm_up()
documents = embed.run([Document(content=text, id=str(n)) for n, text in enumerate(texts)])
store = InMemoryDocumentStore(embedding_similarity_function="cosine")
store.write_documents(documents["documents"])
query = ask.run(texts[0])["embedding"]
found = InMemoryEmbeddingRetriever(store).run(query, top_k=1)["documents"]
assert found[0].content == texts[0], found
vectors = [document.embedding for document in documents["documents"]]
out.write_text(json.dumps({"version": version("haystack-ai"), "vectors": vectors}))
