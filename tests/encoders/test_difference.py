"""Sparse differences: written, applied, added, removed, and refused where they are no good."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor

import mlkd
from mlkd.encoders import difference as module
from mlkd.encoders.coded import CodedEmbedding
from mlkd.encoders.difference import (
    Difference,
    Differences,
    Entries,
    read_difference,
    save_difference,
    weights_fingerprint,
    weights_of,
)
from mlkd.encoders.folder import load_folder
from mlkd.output.errors import UserError


def bits(model: SentenceTransformer) -> dict[str, Tensor]:
    return {n: p.detach().clone().view(torch.int32) for n, p in weights_of(model).items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trained(
    model: SentenceTransformer, seed: int, share: float = 0.1
) -> tuple[Difference, dict[str, Tensor]]:
    """A difference of a model, and the weights of what it makes of it, bits; the model stays."""
    generator = torch.Generator().manual_seed(seed)
    base = weights_fingerprint(weights_of(model).items())
    changed, whole = {}, bits(model)
    for name, parameter in weights_of(model).items():
        index = (torch.rand(parameter.numel(), generator=generator) < share).nonzero()[:, 0]
        if not len(index):
            continue
        # Far from the old values, where float32 does not give them back as a sum.
        values = torch.randn(len(index), generator=generator) * 10.0 ** (index % 9 - 6)
        changed[name] = Entries(index, values)
        whole[name].view(-1)[index] = values.view(torch.int32)
    return Difference(base, share, changed), whole


def test_what_is_written_is_read(tmp_path: Path) -> None:
    positions = [[0], [1], [254], [255], [256], [510], [0, 1, 2], [3, 300, 301, 1_000_000]]
    changed = {
        f"t{n}.x": Entries(torch.tensor(row), torch.arange(len(row)) + 0.5 * n)
        for n, row in enumerate(positions)
    }
    save_difference(Difference("abc", 0.08, changed), tmp_path / "diff.safetensors")
    for place in (tmp_path, tmp_path / "diff.safetensors"):
        found = read_difference(place)
        assert (found.base, found.density, found.count) == ("abc", 0.08, 13)
        assert found.changed.keys() == changed.keys()
        for name, entries in changed.items():
            assert torch.equal(found.changed[name].index, entries.index), name
            assert torch.equal(found.changed[name].values, entries.values)


def test_the_bytes_of_gaps() -> None:
    """3, then 254 left out, then 255, which is a byte more."""
    index = torch.tensor([3, 258, 514])
    assert module._gaps(index).tolist() == [3, 254, 255, 0]
    assert module._positions(torch.tensor([3, 254, 255, 0], dtype=torch.uint8)).tolist() == [
        3, 258, 514,
    ]  # fmt: skip


def test_it_is_applied_and_removed_bit_for_bit(encoder_folder: Path, tmp_path: Path) -> None:
    model = load_folder(encoder_folder)
    before = bits(model)
    one, other = trained(model, 1), trained(model, 2)
    sums = 0
    start = weights_of(model)
    for name, entries in one[0].changed.items():  # what would be lost if changes were written
        old = start[name].detach().view(-1)[entries.index]
        sums += int((old + (entries.values - old) != entries.values).sum())
    assert sums > 10
    for number, (found, _) in enumerate((one, other)):
        save_difference(found, tmp_path / f"{number}.safetensors")
    places = [tmp_path / f"{number}.safetensors" for number in range(2)]
    tasks = Differences(model)
    assert same(bits(model), before)
    for place, (_, whole) in zip(places, (one, other), strict=True):
        tasks.apply(place)
        assert same(bits(model), whole)  # what was applied before is gone
        assert not same(whole, before)
    tasks.apply(*places)
    both = bits(model)
    tasks.apply(*reversed(places))
    assert same(bits(model), both)
    old = {name: value.view(torch.float32).double() for name, value in before.items()}
    twice = 0
    for name, value in both.items():
        total = old[name].view(-1).clone()
        touched = torch.zeros(len(total))
        for found, _ in (one, other):
            entries = found.changed.get(name, Entries(torch.tensor([], dtype=int), torch.zeros(0)))
            for index, new in zip(entries.index.tolist(), entries.values.tolist(), strict=True):
                total[index] += new - float(old[name].view(-1)[index])
                touched[index] += 1
        twice += int((touched == 2).sum())
        assert torch.equal(total.float(), value.view(-1).view(torch.float32)), name
    assert twice > 50
    tasks.remove()
    assert same(bits(model), before)
    tasks.apply()
    assert same(bits(model), before)


def test_the_codes_of_a_word_table_are_part_of_the_base() -> None:
    table = CodedEmbedding(9, 2, 4)
    before = Differences(table).base
    table.codes[3, 1] += 1
    assert Differences(table).base != before


def test_load_applies_them(encoder_folder: Path, tmp_path: Path) -> None:
    model = load_folder(encoder_folder)
    for number in (1, 2):
        found, whole = trained(model, number)
        (tmp_path / str(number)).mkdir()
        save_difference(found, tmp_path / str(number) / "diff.safetensors")
        assert same(bits(mlkd.load(encoder_folder, diff=tmp_path / str(number))), whole)
    tasks = Differences(model)
    tasks.apply(tmp_path / "1", tmp_path / "2")
    given = [tmp_path / "1", str(tmp_path / "2" / "diff.safetensors")]
    assert same(bits(mlkd.load(encoder_folder, diff=given)), bits(model))
    with pytest.raises(UserError, match=r"absent: no diff\.safetensors; give the file"):
        mlkd.load(encoder_folder, diff=tmp_path / "absent")


def rewritten(file: Path, change: Callable[[dict[str, Tensor], dict[str, str]], Any]) -> None:
    """Write a file again, with a right checksum, as somebody would who means harm."""
    with safe_open(file, framework="pt") as content:
        about = dict(content.metadata())
    tensors = load_file(file)
    change(tensors, about)
    del about["sha256"]
    save_file(tensors, file, metadata=about | {"sha256": module._checksum(about, tensors)})


def put(tensors: dict[str, Tensor], key: str, value: Tensor) -> None:
    assert key in tensors
    tensors[key] = value


NAME = "0.model.embeddings.LayerNorm.weight"  # 16 entries
HOSTILE: list[tuple[Callable[[dict[str, Tensor], dict[str, str]], Any], str]] = [
    (lambda t, a: a.update(base="0" * 32), "of another base"),
    (lambda t, a: a.update(version="2"), "format 2 is not known; allowed: 1"),
    (lambda t, a: a.update(format="x"), "no sparse difference"),
    (lambda t, a: a.update(density="much"), "damaged"),
    (lambda t, a: a.update(more="x"), "damaged"),
    (lambda t, a: t.pop(f"{NAME}.values"), "not one tensor of gaps and one of values"),
    (lambda t, a: t.update({f"{NAME}.x": torch.zeros(1)}), "not one tensor of gaps"),
    (lambda t, a: t.update({f"x.{k}": t[f"{NAME}.{k}"].clone() for k in ("gaps", "values")}),
     "the base has no tensor x"),
    (lambda t, a: put(t, f"{NAME}.gaps", torch.tensor([14, 0, 0], dtype=torch.uint8)),
     "position 16 of 16 entries"),
    (lambda t, a: put(t, f"{NAME}.gaps", torch.tensor([255] * 9 + [0] * 3, dtype=torch.uint8)),
     "position 2297 of 16 entries"),
    (lambda t, a: put(t, f"{NAME}.gaps", torch.tensor([0, 0, 0, 255], dtype=torch.uint8)),
     "not one value for each position"),
    (lambda t, a: put(t, f"{NAME}.gaps", torch.tensor([0, 0], dtype=torch.uint8)),
     "not one value for each position"),
    (lambda t, a: put(t, f"{NAME}.gaps", torch.zeros((), dtype=torch.uint8)), "not one value"),
    (lambda t, a: put(t, f"{NAME}.gaps", torch.tensor([0, -3, 0])), "not uint8 and float32"),
    (lambda t, a: put(t, f"{NAME}.gaps", torch.tensor([2**62, 2**62, 0])), "not uint8 and float32"),
    (lambda t, a: put(t, f"{NAME}.values", torch.zeros(3, 1)), "not one value"),
    (lambda t, a: put(t, f"{NAME}.values", torch.zeros(3, dtype=torch.float64)), "not uint8 and"),
    (lambda t, a: put(t, f"{NAME}.values", torch.tensor([0, torch.nan, 0])), "is not finite"),
    (lambda t, a: put(t, f"{NAME}.values", torch.tensor([0, -torch.inf, 0])), "is not finite"),
]  # fmt: skip


@pytest.fixture
def file(encoder_folder: Path, tmp_path: Path) -> Path:
    """A difference of three entries."""
    base = weights_fingerprint(weights_of(load_folder(encoder_folder)).items())
    entries = Entries(torch.tensor([1, 2, 15]), torch.tensor([0.5, -0.5, 3.0]))
    save_difference(Difference(base, 0.1, {NAME: entries}), tmp_path / "diff.safetensors")
    return tmp_path / "diff.safetensors"


def test_a_training_that_changed_nothing_is_a_difference_too(
    encoder_folder: Path, file: Path
) -> None:
    model = load_folder(encoder_folder)
    save_difference(Difference(Differences(model).base, 0.1, {}), file)
    assert read_difference(file).count == 0
    tasks, before = Differences(model), bits(model)
    tasks.apply(file)
    after = bits(model)
    assert all(torch.equal(after[name], bit) for name, bit in before.items())


def test_what_is_no_good_is_refused(encoder_folder: Path, file: Path) -> None:
    model, whole = load_folder(encoder_folder), file.read_bytes()
    tasks = Differences(model)
    tasks.apply(file)
    applied = bits(model)
    for change, message in HOSTILE:
        file.write_bytes(whole)
        rewritten(file, change)
        with pytest.raises(UserError, match=message) as refused:
            tasks.apply(file)
        assert "\n" not in str(refused.value)
        assert str(file) in str(refused.value)
        assert same(bits(model), applied)
    tasks.remove()
    assert weights_fingerprint(weights_of(model).items()) == tasks.base


def test_any_damage_is_noticed(file: Path) -> None:
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UserError):
            read_difference(file)
    for length in (0, 7, 8, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged"):
            read_difference(file)
    header = json.dumps(
        {"x.gaps": {"dtype": "U8", "shape": [1 << 50], "data_offsets": [0, 1 << 50]}}
    )
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\0" * 8)
    with pytest.raises(UserError, match="damaged"):
        read_difference(file)


def test_a_sum_that_is_too_large_is_refused(encoder_folder: Path, file: Path) -> None:
    model = load_folder(encoder_folder)
    rewritten(file, lambda t, a: put(t, f"{NAME}.values", torch.tensor([0.0, 3e38, 0.0])))
    before, tasks = bits(model), Differences(model)
    with pytest.raises(UserError, match=r"the sum of their values in .* is not finite"):
        tasks.apply(file, file)
    assert same(bits(model), before)
    tasks.apply(file)


@pytest.mark.slow
def test_loading_needs_neither_lightning_nor_hydra(encoder_folder: Path, file: Path) -> None:
    code = (
        "import sys, mlkd; mlkd.load(sys.argv[1], diff=sys.argv[2]); "
        "assert not {'lightning', 'hydra', 'omegaconf', 'pydantic'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(encoder_folder), str(file)], check=True)
