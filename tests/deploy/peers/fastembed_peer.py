"""fastembed with a custom model in a local folder."""

import importlib.metadata
import json
import sys
from pathlib import Path

from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

data, file, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
texts = list(json.loads((data / "texts.json").read_text()).values())
TextEmbedding.add_custom_model(
    "mlkd/student", pooling=PoolingType.DISABLED, output_name="sentence_embedding",
    normalization=False, sources=ModelSource(url="local"), dim=384, model_file=file,
)  # fmt: skip
folder = "onnx_q4" if "q4" in file else "portable"
model = TextEmbedding("mlkd/student", specific_model_path=str(data / folder))
vectors = [vector.tolist() for vector in model.embed(texts)]
version = importlib.metadata.version("fastembed")
out.write_text(json.dumps({"version": version, "vectors": vectors}))
