from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ENGLISH
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from students import TEXTS, small
from transformers import AutoModel

from mlkd.encoders.backbone import backbone_of, longest_input
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.storage.files import replacing, replacing_folder


@pytest.fixture(scope="module")
def student(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder") / "student"
    save_folder(small(encoder_folder, 4, layers=2, recurrence=2), folder)
    return folder


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    files = [p for p in (folder, *folder.rglob("*")) if p.is_file()]
    return {p.name: p.stat().st_mode & 0o777 for p in files}


def test_what_is_written_is_read_by_whom_the_umask_lets(
    student: Path, umask: int, tmp_path: Path
) -> None:
    save_folder(load_folder(student), tmp_path / "student")
    with replacing_folder(tmp_path / "cache") as part:
        shutil.copytree(student, part / "student")
        (part / "student/model.safetensors").chmod(0o600)  # as safetensors leaves it
    with replacing(tmp_path / "best.safetensors") as file:
        file.touch(mode=0o600)
    found = modes(tmp_path / "student") | modes(tmp_path / "cache") | modes(tmp_path)
    assert {"model.safetensors", "best.safetensors", "config.json"} <= set(found)
    assert set(found.values()) == {0o666 & ~umask}, found


def test_no_file_says_where_the_model_lay(student: Path, encoder_folder: Path) -> None:
    """Neither a folder nor a switch of the process that wrote it."""
    files = [file for file in student.rglob("*") if file.is_file()]
    assert {"config.json", "model.safetensors", "modules.json"} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        for trace in (student.parent, encoder_folder, Path.home(), Path.cwd()):
            assert os.fsencode(trace) + b"/" not in content, (file, trace)
            assert b"_name_or_path" not in content, file
            assert b"local_files_only" not in content, file


def test_the_tokenizer_says_one_length_and_the_right_one(student: Path) -> None:
    config = json.loads((student / "tokenizer_config.json").read_text())
    assert config["model_max_length"] == load_folder(student).max_seq_length == 16
    assert "max_length" not in config


def test_transformers_refuses_weights_that_it_would_not_run(student: Path) -> None:
    with pytest.raises(ValueError, match="mlkd_compact"):
        AutoModel.from_pretrained(student)


@pytest.mark.parametrize("recurrence", [1, 2])
def test_transformers_loads_what_it_can_run(
    recurrence: int, encoder_folder: Path, tmp_path: Path
) -> None:
    """Whole layers and a whole table; run twice they are not what its configuration says."""
    model = small(encoder_folder, None, layers=2, recurrence=recurrence)
    save_folder(model, tmp_path / "student")
    if recurrence == 2:
        with pytest.raises(ValueError, match="mlkd_compact"):
            AutoModel.from_pretrained(tmp_path / "student")
        return
    loaded = AutoModel.from_pretrained(tmp_path / "student", add_pooling_layer=False).eval()
    batch = model.tokenizer(ENGLISH[:1], return_tensors="pt")
    hidden = loaded(**batch).last_hidden_state.mean(1)[0].detach().numpy()
    assert hidden == pytest.approx(model.encode(ENGLISH[0]), abs=1e-6)


def test_a_student_of_an_earlier_layout_loads(student: Path, tmp_path: Path) -> None:
    """It says the backbone's own type, a path, and the length of the encoder it came from."""
    old = shutil.copytree(student, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    config |= {"model_type": config.pop("backbone"), "_name_or_path": "/home/me/model"}
    (old / "config.json").write_text(json.dumps(config))
    listing = (old / "modules.json").read_text()
    earlier = listing.replace("mlkd.encoders.compact.", "mlkd.student.encoder.")
    assert earlier != listing
    (old / "modules.json").write_text(earlier)
    tokenizer = json.loads((old / "tokenizer_config.json").read_text())
    changed = tokenizer | {"model_max_length": 32, "is_local": True, "local_files_only": True}
    (old / "tokenizer_config.json").write_text(json.dumps(changed))
    again = load_folder(old)
    assert (again.encode(TEXTS) == load_folder(student).encode(TEXTS)).all()
    save_folder(again, tmp_path / "new")
    before, after = (load_file(f / "model.safetensors") for f in (student, tmp_path / "new"))
    assert all((before[name] == after[name]).all() for name in before)
    assert modes(tmp_path / "new").keys() == modes(student).keys()
    for name in ("config.json", "modules.json", "tokenizer_config.json"):
        assert (tmp_path / "new" / name).read_text() == (student / name).read_text(), name


def test_a_folder_may_be_given_as_text(student: Path) -> None:
    assert (load_folder(str(student)).encode(TEXTS) == load_folder(student).encode(TEXTS)).all()


@pytest.mark.parametrize(
    "asked",
    [{"backend": "onnx"}, {"model_kwargs": {"dtype": "float16"}}, {"processor_kwargs": {"a": 1}}],
    ids=lambda asked: next(iter(asked)),
)
def test_settings_that_a_compact_student_cannot_follow_are_refused(
    asked: dict[str, Any], student: Path
) -> None:
    with pytest.raises(ValueError, match="a compact student"):
        SentenceTransformer(str(student), device="cpu", trust_remote_code=True, **asked)


@pytest.mark.parametrize("kind", ["encoder_folder", "xlmr"])
def test_a_text_is_cut_where_an_encoder_has_no_more_positions(
    kind: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    positions = longest_input(backbone_of(load_folder(folder)))
    texts = [" ".join(ENGLISH * 100), ENGLISH[0]]
    most = FrozenEncoder.open(folder, max_tokens=positions).encode(texts)
    more = FrozenEncoder.open(folder, max_tokens=positions + 32).encode(texts)
    np.testing.assert_array_equal(more, most)
