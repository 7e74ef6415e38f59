"""Files that want to be executed, or to lead elsewhere, are refused without being followed."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import configure, run_until, tiny_settings, write_corpus

from mlkd.config.schema import TrainConfig
from mlkd.encoders.folder import load_folder
from mlkd.output.errors import UserError


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Where the payload shows that it was run; it does show it if it is."""
    mark = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(mark)))
    mark.rmdir()
    return mark


@pytest.fixture(scope="module")
def interrupted(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of a chain that was interrupted after its third step."""
    folder = tmp_path_factory.mktemp("interrupted")
    corpus, output = write_corpus(folder / "corpus"), folder / "out"
    run_until(configure("stage=assistant", *tiny_settings(encoder_folder, corpus, output)), 2)
    return output


@pytest.fixture
def unfinished(interrupted: Path, tmp_path: Path) -> Path:
    """Its checkpoint, in ``tmp_path / "out"``."""
    (path,) = shutil.copytree(interrupted, tmp_path / "out").glob("runs/*/last.ckpt")
    return path


def crafted(kind: str, path: Path, mark: Path) -> None:
    """Put a file with the payload in place of a checkpoint."""
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(mark)))
    elif kind == "torch":
        torch.save({"state_dict": Payload(mark)}, path)
    elif kind == "legacy":
        torch.save({"state_dict": Payload(mark)}, path, _use_new_zipfile_serialization=False)
    elif kind == "beside":  # a true checkpoint with one more value
        content = torch.load(path, weights_only=True)
        torch.save(content | {"more": Payload(mark)}, path)
    elif kind == "flip":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Payload(mark)))
    elif kind == "foreign":
        content = torch.load(path, weights_only=True)
        content["callbacks"]["Checkpoint"]["run"] = "assistant-0000"
        torch.save(content, path)
    elif kind == "plain":
        torch.save({"epoch": 1}, path)


@pytest.mark.parametrize(
    "kind",
    ["pickle", "torch", "legacy", "beside", "flip", "truncated", "empty", "zip", "foreign",
     "plain"],
)  # fmt: skip
def test_crafted_checkpoints_are_refused_without_being_run(
    tiny: Callable[..., TrainConfig], unfinished: Path, mark: Path, kind: str
) -> None:
    from mlkd.recipes.run import run_chain

    crafted(kind, unfinished, mark)
    content = unfinished.read_bytes()
    with pytest.raises(UserError, match="refused") as error:
        run_chain(tiny(stage="assistant"))
    assert str(unfinished) in str(error.value)
    assert "\n" not in str(error.value)
    assert not mark.exists()
    assert unfinished.read_bytes() == content


def test_pickles_in_arrays_and_weights_are_not_run(
    tiny: Callable[..., TrainConfig], encoder_folder: Path, tmp_path: Path, mark: Path
) -> None:
    from mlkd.recipes.chain import open_chain

    chain = open_chain(tiny(stage="assistant"))
    arrays = [*chain.cache.rglob("*.npy")]
    assert len(arrays) > 5
    for path in arrays:
        np.save(path, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    open_chain(tiny(stage="assistant"))
    bad = tmp_path / "bad"
    shutil.copytree(encoder_folder, bad)
    torch.save({"x": Payload(mark)}, bad / "pytorch_model.bin")
    load_folder(bad)  # whose safetensors are taken
    torch.save({"x": Payload(mark)}, bad / "model.safetensors")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_folder(bad)
    (bad / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        load_folder(bad)
    assert not mark.exists()


@pytest.mark.parametrize("place", ["../other", "/etc", "1_Pooling/../../other", "a\0b"])
def test_modules_do_not_leave_their_folder(
    encoder_folder: Path, tmp_path: Path, place: str
) -> None:
    shutil.copytree(encoder_folder, tmp_path / "bad")
    shutil.copytree(encoder_folder, tmp_path / "other")
    listing = tmp_path / "bad/modules.json"
    entries = json.loads(listing.read_text())
    entries[-1]["path"] = place
    listing.write_text(json.dumps(entries))
    with pytest.raises(UserError, match="leaves the folder"):
        load_folder(tmp_path / "bad")


def test_code_beside_a_model_is_not_run(encoder_folder: Path, tmp_path: Path, mark: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(encoder_folder, bad)
    (bad / "evil.py").write_text(f"import os; os.mkdir({str(mark)!r})\nConfig = Model = None\n")
    config = json.loads((bad / "config.json").read_text())
    config |= {"model_type": "evil"}
    config |= {"auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (bad / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="cannot be loaded") as error:
        load_folder(bad)
    assert "\n" not in str(error.value)
    assert not mark.exists()
