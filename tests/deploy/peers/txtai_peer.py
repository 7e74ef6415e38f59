"""txtai: vectors, and an index in which a text finds itself."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from txtai import Embeddings

data, folder, out = Path(sys.argv[1]), Path(sys.argv[1], sys.argv[2]), Path(sys.argv[3])
texts = list(json.loads((data / "texts.json").read_text()).values())
model = Embeddings(path=str(folder), content=False, gpu=False)
vectors = model.batchtransform(texts)
model.index(texts)
assert model.search(texts[0], 1)[0][0] == 0
rows = [[float(x) for x in vector] for vector in vectors]
out.write_text(json.dumps({"version": version("txtai"), "vectors": rows}))
