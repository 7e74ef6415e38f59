"""Code of the model cards: how each tool opens the folder that a card lies in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlkd.config.commands import ExportFormat

_ENCODE = """from encode import Encoder  # in this folder; pip install onnxruntime tokenizers numpy

model = Encoder()
"""

_TORCH = """from sentence_transformers import SentenceTransformer  # 3 to 6

model = SentenceTransformer(".")
"""

_COMPACT = """from mlkd.encoders.folder import load_folder  # needs mlkd

model = load_folder(".")
"""

_USES = {
    "Vectors": """{load}
vectors = model.encode(["Where is my parcel?", "Wo ist mein Paket?"])
print(vectors.shape)
""",
    "Similarity": """import numpy as np
{load}
a, b = (v / np.linalg.norm(v) for v in model.encode(["Good morning!", "Guten Morgen!"]))
print(float(a @ b))
""",
    "Search": """import numpy as np
{load}
texts = ["Wo ist mein Paket?", "Ich möchte bezahlen.", "Das Wetter ist schön."]
index, query = (model.encode(x) for x in (texts, ["Where is my parcel?"]))
cosines = (index @ query[0]) / np.linalg.norm(index, axis=1)
print(texts[cosines.argmax()])
""",
}

_PIPELINE = """import {{ env, pipeline }} from "@huggingface/transformers";

env.localModelPath = "..";  // the folder that holds this one; or its name on the hub
const encode = await pipeline("feature-extraction", "{folder}", {{ dtype: "{dtype}" }});
const vectors = await encode(["Where is my parcel?"], {{ pooling: "mean", normalize: true }});
console.log(vectors.tolist());
"""

_GRAPH = """import {{ AutoModel, AutoTokenizer, env }} from "@huggingface/transformers";

env.localModelPath = "..";  // the folder that holds this one; or its name on the hub
const tokenizer = await AutoTokenizer.from_pretrained("{folder}");
const model = await AutoModel.from_pretrained("{folder}", {{ dtype: "{dtype}" }});
const inputs = tokenizer(["Where is my parcel?"], {{ padding: true, truncation: true }});
console.log((await model(inputs)).sentence_embedding.tolist());
"""

_DTYPES = {"_quantized.onnx": "q8", "_q4.onnx": "q4"}
"""What Transformers.js calls a graph, by the end of its file."""

_FASTEMBED = """from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

TextEmbedding.add_custom_model(
    "{name}", pooling=PoolingType.DISABLED, output_name="sentence_embedding",
    normalization=False, sources=ModelSource(url="local"), dim={width}, model_file="{file}",
)
model = TextEmbedding("{name}", specific_model_path=".")
vectors = list(model.embed(["Where is my parcel?"]))
"""

_SHORTER = """from encode import Encoder

model, texts = Encoder(), ["Where is my parcel?", "Wo ist mein Paket?"]
half = model.encode(texts, dimensions={half})  # the first numbers at length 1: {half_bytes} bytes
small = model.encode(texts, precision="int8")  # {width} bytes, to compare by cosine
tiny = model.encode(texts, precision="binary")  # {packed} bytes, to compare by Hamming distance
"""

_USEARCH = """import numpy as np
from encode import Encoder
from usearch.index import Index

model, texts = Encoder(), ["Wo ist mein Paket?", "Das Wetter ist schön."]
index = Index(ndim={width}, metric="cos", dtype="i8")
index.add(np.arange(len(texts)), model.encode(texts, precision="int8"))
query = model.encode("Where is my parcel?", precision="int8")
print(texts[index.search(query, 1).keys[0]])

bits = Index(ndim={bits}, metric="hamming", dtype="b1")
bits.add(np.arange(len(texts)), model.encode(texts, precision="binary").view(np.uint8))
query = model.encode("Where is my parcel?", precision="binary").view(np.uint8)
print(texts[bits.search(query, 1).keys[0]])
"""

_FAISS = """import faiss
import numpy as np
from encode import Encoder

model, texts = Encoder(), ["Wo ist mein Paket?", "Das Wetter ist schön."]
kind = faiss.ScalarQuantizer.QT_8bit  # finds the range of each number itself
index = faiss.IndexScalarQuantizer({width}, kind, faiss.METRIC_INNER_PRODUCT)
vectors = model.encode(texts)
index.train(vectors)  # some thousands of them will do
index.add(vectors)
print(texts[index.search(model.encode(["Where is my parcel?"]), 1)[1][0, 0]])

bits = faiss.IndexBinaryFlat({bits})
bits.add(model.encode(texts, precision="binary").view(np.uint8))
query = model.encode(["Where is my parcel?"], precision="binary").view(np.uint8)
print(texts[bits.search(query, 1)[1][0, 0]])
"""

_INDEXES = """usearch takes int8 vectors as they are, with the metric `cos`; with `ip`, or float32
vectors that it casts itself, it finds less. faiss takes float32 vectors and makes bytes of them;
its `QT_8bit_direct` and `QT_8bit_direct_signed` cannot hold vectors of length 1."""

_MTEB = """from sentence_transformers import SentenceTransformer, SentenceTransformerModelCardData

# The name under which mteb keeps scores: without one every local folder shares those of the first.
card = SentenceTransformerModelCardData(model_name="{name}", local_files_only=True)
model = SentenceTransformer(".", model_card_data=card)
"""


_LLAMA = """import {{ getLlama }} from "node-llama-cpp";

const llama = await getLlama();
const model = await llama.loadModel({{ modelPath: "model-q8_0.gguf" }});
const sizes = {{ contextSize: {longest}, batchSize: {longest} }};
const context = await model.createEmbeddingContext(sizes);
const {{ vector }} = await context.getEmbeddingFor("Where is my parcel?".normalize("NFC"));
const length = Math.hypot(...vector);
console.log(vector.map((x) => x / length));
"""

_LLAMA_NOTES = """For llama.cpp that knows the keys `tokenizer.ggml.normalizer`, as of 2026;
earlier ones strip accents, and text with them gets other vectors. Give it text in NFC: an accent
that is a character of its own makes the whole word unknown. So does any character without a piece:
in Thai and other scripts without spaces all up to the next space, where the student cuts the word
there, as it does after 100 characters. Vectors are not of length 1. A text of more than {longest}
tokens is not cut but refused by node-llama-cpp; an empty one has no vector.

The numbers below are of the weights, read back from the files and run in PyTorch with the
student's own tokenizer; llama.cpp was not run when this folder was written."""


_SPARSE = """This folder holds no encoder, but what a task changes of one: the student of the run
`{base}`. With its folder, or a compact export of it, as `base`:

```python
import mlkd

model = mlkd.load("base", diff=".")
vectors = model.encode(["Where is my parcel?", "Wo ist mein Paket?"])
```

The vectors are bit for bit those of the student that was trained. `diff=[…]` adds several
differences of one base; `mlkd.encoders.difference.Differences` exchanges and removes them."""


_ASYMMETRIC = """Queries are read by the student, documents by the {name}, into one space.

```python
from sentence_transformers import SentenceTransformer  # 5 and 6

model, texts = SentenceTransformer("."), ["Your parcel is on its way.", "The weather is fine."]
index = model.encode_document(texts)
query = model.encode_query("Wo ist mein Paket?")
print(texts[model.similarity(query, index).argmax()])
```

`encode` is `encode_document`. {notes}`query/` and `document/` are folders of their own, for
sentence-transformers from 3: a machine that only asks needs no more than `query/`."""


_WEB = """A page that searches {texts:,} texts across languages, in a browser and without a network.
A server of static files is all that it needs:

```sh
python -m http.server --bind 127.0.0.1
```

in this folder, then <http://127.0.0.1:8000>. `search.json` has the texts, `vectors.bin` their
vectors in int8, which the graph gave when this folder was written; what is typed is encoded in the
browser by {runtime}. Their licences are in `runtime/`.

In Python the graph gives the same vectors, but for rounding:

```python
{python}```"""


def use(name: ExportFormat, longest: int, report: Mapping[str, Any]) -> str:
    """The section on how to open the folder with what it is made for.

    Args:
        name: Its format.
        longest: Longer inputs are cut (tokens).
        report: ``base``, the run whose student a sparse difference is applied to; ``documents``,
            the ``name`` of the encoder of documents, its ``longest`` input and ``prompt``; ``web``,
            how many ``texts`` a page searches, and the versions of its ``runtime``.
    """
    if name == "sparse":
        return f"## Use\n\n{_SPARSE.format(base=report['base'])}"
    if name == "asymmetric":
        other = report["documents"]
        notes = f"Documents are cut at {other['longest']} tokens"
        notes += f" and read with the prompt {other['prompt']!r}. " if other["prompt"] else ". "
        if other["name"] == "teacher":
            notes += "They are in its language, as a rule English. "
        return f"## Use\n\n{_ASYMMETRIC.format(name=other['name'], notes=notes)}"
    if name == "web":
        runtime = " and ".join(" ".join(part) for part in report["web"]["runtime"].items())
        python = _USES["Vectors"].format(load=_ENCODE)
        texts = report["web"]["texts"]
        return f"## Use\n\n{_WEB.format(texts=texts, runtime=runtime, python=python)}"
    if name == "gguf":
        javascript, notes = (text.format(longest=longest) for text in (_LLAMA, _LLAMA_NOTES))
        return f"## Use\n\n```js\n{javascript}```\n\n{notes}"
    return f"## Use\n\nEach of these runs by itself in this folder.\n\n{_python(name)}"


def _python(name: ExportFormat) -> str:
    """Pieces of Python; each runs by itself in the folder."""
    loads = {"portable": _TORCH, "compact": _COMPACT}
    load = loads.get(name, _ENCODE)
    found = [f"{title}:\n\n```python\n{use.format(load=load)}```" for title, use in _USES.items()]
    return "\n\n".join(found)


def other_tools(name: ExportFormat, source: str, file: str, width: int, mean: bool) -> str:
    """Sections on what else opens the folder.

    Args:
        name: Its format.
        source: What the student is called.
        file: The graph that is the smallest of the folder.
        width: Of a vector.
        mean: Whether the vector is the mean of the last hidden states, at length 1.
    """
    if name not in ("portable", "onnx_int8", "onnx_q4"):
        return ""
    dtype = next((kind for end, kind in _DTYPES.items() if file.endswith(end)), "fp32")
    javascript = (_PIPELINE if mean else _GRAPH).format(folder=name, dtype=dtype)
    called = f"mlkd/{source}"
    fastembed = _FASTEMBED.format(name=called, width=width, file=file)
    packed = -(-width // 8)
    sizes = {"width": width, "half": width // 2, "half_bytes": width // 2 * 4, "packed": packed,
             "bits": 8 * packed}  # fmt: skip
    shorter, usearch, faiss = (x.format(**sizes) for x in (_SHORTER, _USEARCH, _FAISS))
    parts = [
        f"### Shorter vectors\n\n```python\n{shorter}```\n\n{_INDEXES}",
        f"### usearch\n\n```python\n{usearch}```",
        f"### faiss\n\n```python\n{faiss}```",
        f"### Transformers.js, from 3\n\n```js\n{javascript}```",
        f"### fastembed, from 0.9\n\n```python\n{fastembed}```",
    ]
    if name == "portable":
        small = f"### ONNX Runtime alone\n\n```python\n{_USES['Vectors'].format(load=_ENCODE)}```"
        notes = (
            "`encode.py` takes int8 where it is, else float32: "
            '`Encoder(model="onnx/model.onnx")`. It needs itself, `onnx/`, `tokenizer.json` and '
            "`tokenizer_config.json`."
        )
        mteb = f"### mteb\n\n```python\n{_MTEB.format(name=called)}```"
        parts = [small, notes, *parts, mteb]
    return "\n\n".join(["## Other tools", *parts])
