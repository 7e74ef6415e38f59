"""Exported students in the tools that people use; environments are made once, from registries."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from targets import TARGETS, Target, data, environment, run, texts

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
