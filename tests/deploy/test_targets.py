"""Exported students in the tools that people use; environments are made once, from registries."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest
from indexes import PACKAGES
from indexes import data as index_data
from indexes import run as run_indexes
from pages import PAGES
from targets import TARGETS, Target, data, environment, node, run, texts

from mlkd.deploy.snippets import other_tools


def test_the_texts_are_of_many_kinds() -> None:
    found = texts()
    assert len(found) >= 70
    for letter in "ßİı\u0308":
        assert any(letter in text for text in found.values()), letter
    assert found["empty"] == ""
    assert len(found["long"].split()) > 300


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t.name} {(t.packages or ('',))[0]}")
def test_a_target_has_the_vectors_of_the_student(target: Target) -> None:
    if target.packages is None and not shutil.which("npm"):
        pytest.skip("needs Node and npm")
    result = run(target)
    assert result["least"] >= target.least
    if "llama" in target.script:  # as the card says
        assert result["decomposed"] < 0.9
        assert "Input is longer than" in result["long"]
        assert not isinstance(result["empty"], float)
    else:
        for kind in ("decomposed", "long", "empty"):
            assert result[kind] >= target.least, kind


ROUTED = """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer
place = sys.argv[1]
texts = list(json.load(open(f"{place}/texts.json")).values())
model = SentenceTransformer(f"{place}/asymmetric", device="cpu")
for encode, file in ((model.encode_query, "expected"), (model.encode_document, "documents"),
                     (model.encode, "documents")):
    found = encode(texts, normalize_embeddings=True)
    print((found * np.load(f"{place}/{file}.npy")).sum(1).min())
"""


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "packages",
    [
        ("sentence-transformers==5.1.2", "transformers==4.57.6"),
        ("sentence-transformers==5.7.0", "transformers==5.23.0"),
        ("sentence-transformers==6.2.0", "transformers==5.23.0"),
    ],
    ids=lambda packages: packages[0],
)
def test_queries_and_documents_have_the_vectors_of_their_encoders(
    packages: tuple[str, ...],
) -> None:
    done = subprocess.run(
        [environment(packages), "-c", ROUTED, data()], capture_output=True, text=True, check=False,
        env={**{k: x for k, x in os.environ.items() if k != "PYTHONPATH"}, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1500:]
    cosines = [float(line) for line in done.stdout.splitlines()]
    assert len(cosines) == 3
    assert min(cosines) > 0.99999


NAMES = """
import json, sys
from mteb.models import ModelMeta
names = []
for snippet in json.loads(sys.argv[1]):
    found = {}
    exec(snippet, found)
    names.append(ModelMeta.from_sentence_transformer_model(found["model"]).name)
print(json.dumps(names))
"""


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(1800)
def test_mteb_tells_two_students_apart() -> None:
    """By the name that the card gives; without one every local folder has the same."""
    folder = data() / "portable"
    plain = (
        "from sentence_transformers import SentenceTransformer\n"
        f"model = SentenceTransformer({str(folder)!r})"
    )
    snippets = [other_tools("portable", name, "", 384, True) for name in ("one", "two")]
    parts = [text.partition("### mteb")[2].split("```")[1] for text in snippets]
    cards = [part.removeprefix("python") for part in parts]
    given = [code.replace('"."', repr(str(folder))) for code in cards]
    done = subprocess.run(
        [environment(["mteb==2.26.24"]), "-c", NAMES, json.dumps([*given, plain])],
        capture_output=True, text=True, check=True, env={"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == [
        "mlkd/one",
        "mlkd/two",
        "no_model_name/available",
    ]


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(1800)
def test_an_index_finds_most_when_it_is_fed_as_the_cards_say() -> None:
    found = {(name.split()[0], setting, fed): recall for name, setting, fed, _, recall in
             run_indexes()}  # fmt: skip
    usual, own = '`metric="cos", dtype="i8"`', 'vectors of `precision="int8"`'
    right = found["usearch", usual, own]
    assert right > 0.98
    assert right > found["usearch", "the same", "vectors times 127, rounded"]
    assert right > found["usearch", "the same", "float32 vectors, which it casts"]
    assert found["usearch", '`metric="ip", dtype="i8"`', own] < 0.9
    assert found["faiss", "`QT_8bit`, trained", "float32 vectors"] > 0.98
    assert found["faiss", "`QT_8bit_direct_signed`", "float32 vectors"] < 0.1


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tool", ["usearch", "faiss"])
def test_the_snippet_of_an_index_runs(tool: str) -> None:
    text = other_tools("onnx_int8", "one", "onnx/model_quantized.onnx", 384, True)
    (snippet,) = re.findall(rf"### {tool}\n\n```python\n(.*?)```", text, re.S)
    more = 'texts += ["Where is my package?", "The weather is fine."]\n'
    snippet = re.sub(r"(model, texts = .*\n)", r"\1" + more, snippet)
    done = subprocess.run(
        [environment(PACKAGES), "-c", snippet], cwd=index_data(), capture_output=True, text=True,
        check=False, env={key: x for key, x in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["Where is my package?"] * 2, done.stderr


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(1800)
def test_the_code_of_the_readme_runs() -> None:
    text = PAGES["README.md"]
    (python,) = re.findall(r"^```python\n(from fastembed .*?)^```$", text, re.M | re.S)
    python += 'print(next(iter(model.embed(["Guten Morgen!"]))).shape)\n'
    (script,) = re.findall(r"^```js\n(.*?)^```$", text, re.M | re.S)
    file = node() / "readme.mjs"
    file.write_text(f"{script}console.log(vectors.dims.join());\n")
    clean = {key: x for key, x in os.environ.items() if key != "PYTHONPATH"}
    shown = []
    for command in ([environment(("fastembed==0.9.1",)), "-c", python], ["node", file]):
        done = subprocess.run(
            command, cwd=data(), capture_output=True, text=True, check=False,
            env=clean | {"HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        shown += done.stdout.splitlines()
    assert shown == ["(384,)", "1,384"]
