"""What makes training fast changes no loss and no gradient."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ENGLISH, link_settings
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from mlkd.config.schema import TrainConfig
from mlkd.config.student import InitConfig, StudentConfig
from mlkd.data.module import PairBatch
from mlkd.encoders.backbone import backbone_of, set_dropout
from mlkd.encoders.folder import load_folder
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.machine.onednn import OneDnnLinear, use_onednn
from mlkd.stages import stage_of
from mlkd.stages.base import Stage
from mlkd.stages.sentence import SentenceStage
from mlkd.student.initialise import build_student
from mlkd.student.table import OccurringRows, WholeTable
from mlkd.targets.cache import compute_targets

STEPS = 5


def model(folder: Path, bottleneck: bool) -> SentenceTransformer:
    torch.manual_seed(0)  # the new rows are random
    made = load_folder(folder)
    rows = backbone_of(made).config.vocab_size
    backbone_of(made).resize_token_embeddings(rows + 50, mean_resizing=False)
    if bottleneck:
        size = StudentConfig(bottleneck=4, layers=4, recurrence=1)
        init = InitConfig(source="teacher", layers="first", embedding="svd")
        made = build_student(made, size, init, torch.ones(rows + 50), 32)
    set_dropout(made, 0.0)
    return made


def batches(ids: torch.Tensor) -> list[PairBatch]:
    """Five batches of 3 pairs over 6 sentences; one source comes up twice, with padding."""
    torch.manual_seed(1)
    made = []
    for _ in range(STEPS):
        block = ids[torch.randint(len(ids), (6, 8))]
        mask = torch.ones_like(block)
        mask[::2, 5:] = 0
        block[mask == 0] = 0
        source, translation = torch.tensor([0, 0, 2]), torch.tensor([3, 4, 5])
        target = torch.randn(3, 16)
        made.append(
            PairBatch(
                ids=block,
                mask=mask,
                sentences=torch.arange(6),
                source=source,
                translation=translation,
                source_target=target,
                translation_target=target,
                pairs=torch.arange(3),
                domain=torch.zeros(3, dtype=torch.long),
            )
        )
    return made


def train(stage: Stage, steps: list[PairBatch]) -> list[tuple[float, dict[str, torch.Tensor]]]:
    """Losses and clipped gradients of every step."""
    made = stage.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    stage.model.train()
    found = []
    for batch in steps:
        loss = stage.objective(batch).loss
        loss.backward()
        named = [(n, p) for n, p in stage.named_parameters() if p.grad is not None]
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        found.append((float(loss.detach()), {n: p.grad.clone() for n, p in named}))
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return found


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("stage", ["sentence", "embedding"])
def test_losses_gradients_and_weights_are_those_of_the_whole_table(
    encoder_folder: Path, bottleneck: bool, stage: str
) -> None:
    settings = link_settings(stage, {"pair_mse": {}}, weight_decay=0.5)
    kind = stage_of(settings)
    plain, fast = model(encoder_folder, bottleneck), model(encoder_folder, bottleneck)
    start = {name: value.clone() for name, value in plain.state_dict().items()}
    ids = torch.tensor([3, 5, 8, 13, 21, 34, 40])
    vocabulary = backbone_of(plain).config.vocab_size
    occurs = torch.zeros(vocabulary, dtype=torch.bool)
    occurs[ids] = True

    whole = train(kind(plain, settings, STEPS), batches(ids))
    words = WholeTable.take_out(backbone_of(fast), occurs)
    assert words.rows.weight.shape[0] == len(ids) + 1  # and padding
    module = kind(fast, settings, STEPS)
    part = train(module, batches(ids))
    decay = partial(module.decay_until, words.rows.weight)
    words.decay = decay(STEPS, [])
    assert decay(STEPS, [0, 1]) * decay(2, []) == pytest.approx(words.decay)
    words.put_back()

    table = next(n for n, p in plain.named_parameters() if p.shape[0] == vocabulary)
    rows = torch.cat([torch.tensor([0]), ids])
    for (loss, gradients), (fast_loss, fast_gradients) in zip(whole, part, strict=True):
        assert fast_loss == pytest.approx(loss, rel=1e-5)
        assert len(gradients) == len(fast_gradients)
        for name, gradient in gradients.items():
            wanted = gradient[rows] if name.endswith(table) else gradient
            assert torch.allclose(fast_gradients[name], wanted, rtol=0, atol=1e-5), name
    after, fast_after = plain.state_dict(), fast.state_dict()
    assert list(after) == list(fast_after)
    for name, value in after.items():
        assert torch.allclose(fast_after[name], value, rtol=1e-4, atol=1e-5), name
    untouched = ~occurs
    untouched[0] = False
    decayed = after[table][untouched] / start[table][untouched]
    assert decayed.max() < 0.99  # the test would see it if decay were forgotten


def test_a_token_that_was_not_announced_is_refused() -> None:
    table = torch.nn.Embedding(10, 4, padding_idx=1)
    rows = OccurringRows(table, torch.arange(10) > 6)
    assert torch.equal(rows(torch.tensor([[1, 7, 9]])), table(torch.tensor([[1, 7, 9]])))
    with pytest.raises(IndexError):
        rows(torch.tensor([[2]]))


def test_a_stage_hands_on_the_whole_table(tiny: Callable[..., TrainConfig], tmp_path: Path) -> None:
    from mlkd.recipes.run import run_chain

    run_chain(tiny("optim.weight_decay=5", "stages.assistant.lr=1e-3", stage="assistant"))
    (before,) = (tmp_path / "out/cache").glob("assistant-*")
    (after,) = (tmp_path / "out/runs").glob("assistant-*/student")
    (tokens,) = (tmp_path / "out/cache").glob("tokens-*")
    name = "embeddings.word_embeddings.weight"
    old, new = (load_file(f / "model.safetensors")[name] for f in (before, after))
    assert old.shape == new.shape
    used = np.unique(np.load(tokens / "ids.npy"))
    unused = np.setdiff1d(np.arange(len(old)), np.append(used, 0))
    assert 0 < len(unused) < len(old)
    record = json.loads((after.parent / "run.json").read_text())
    step = int(record["training"]["best"]["step"])
    rates = [1.0, *((6 - t) / 5 for t in range(1, step))]
    factor = np.prod([1 - 1e-3 * rate * 5 for rate in rates])
    assert torch.allclose(new[unused], old[unused] * factor, rtol=1e-5)
    assert not torch.allclose(new[used], old[used] * factor, atol=1e-3)


@pytest.mark.parametrize("loss", ["pair_mse", "mcl"])
def test_each_sentence_once_is_each_side_on_its_own(encoder_folder: Path, loss: str) -> None:
    stage = SentenceStage(
        model(encoder_folder, False), link_settings("sentence", {loss: {}}), STEPS
    )

    def side(batch: PairBatch, which: torch.Tensor) -> torch.Tensor:
        longest = int(batch.mask[which].sum(1).max())
        return stage.encode(batch.ids[which, :longest], batch.mask[which, :longest])

    for batch in batches(torch.arange(3, 40)):
        found = []
        for plain in (False, True):
            stage.zero_grad()
            if plain:
                one, other = side(batch, batch.source), side(batch, batch.translation)
                vectors = replace(stage.vectors(batch), source=one, translation=other)
                value = stage.loss(vectors)[0]
            else:
                value = stage.objective(batch).loss
            value.backward()
            found.append((float(value.detach()), [p.grad for p in stage.model.parameters()]))
        (fast_loss, fast), (plain_loss, wanted) = found
        assert fast_loss == pytest.approx(plain_loss, rel=1e-5)
        for one, other in zip(fast, wanted, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("vendor", "flags", "chosen"),
    [
        ("AuthenticAMD", "avx2 avx512f", OneDnnLinear),
        ("AuthenticAMD", "avx2", torch.nn.Linear),
        ("GenuineIntel", "avx2 avx512f", torch.nn.Linear),
    ],
)
def test_onednn_multiplies_where_mkl_is_slow(
    encoder_folder: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, flags: str, chosen: type
) -> None:
    info = {"vendor_id": vendor, "flags": flags}
    monkeypatch.setattr("mlkd.machine.hardware._cpu_info", lambda field: info[field].split())
    for as_it_comes, kind in ((False, chosen), (True, torch.nn.Linear)):
        encoder = FrozenEncoder.open(encoder_folder, max_tokens=16, as_it_comes=as_it_comes)
        found = {type(m) for m in encoder.model.modules() if isinstance(m, torch.nn.Linear)}
        assert found == {kind}


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_products_by_onednn_have_the_values_and_gradients_of_torchs_own() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(
        torch.nn.Linear(24, 40), torch.nn.GELU(), torch.nn.Linear(40, 8, bias=False)
    )
    fast = deepcopy(plain)
    use_onednn(fast)
    assert [type(layer) for layer in fast] == [OneDnnLinear, torch.nn.GELU, OneDnnLinear]
    for shape in ((24,), (5, 24), (2, 3, 24)):
        rows = torch.randn(shape)
        found, wanted = [], []
        for model, results in ((fast, found), (plain, wanted)):
            given = rows.clone().requires_grad_()
            model.zero_grad()
            made = model(given)
            made.square().sum().backward()
            results += [made, given.grad, *(p.grad for p in model.parameters())]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(rows), plain(rows))
    assert torch.equal(fast.double()(rows.double()), plain.double()(rows.double()))


def test_vectors_that_are_known_need_no_model(
    encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened() -> FrozenEncoder:
        return FrozenEncoder.open(encoder_folder, max_tokens=16)

    def texts(which: np.ndarray) -> list[str]:
        return [ENGLISH[i] for i in which]

    rows = np.arange(len(ENGLISH))
    first = compute_targets(opened(), texts, rows, len(rows), tmp_path, "x").vectors(rows)
    assert np.abs(first - opened().encode(ENGLISH)).max() < 1e-3  # they are kept in float16

    def refused(folder: Path) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr("mlkd.encoders.frozen.load_folder", refused)
    again = compute_targets(opened(), texts, rows, len(rows), tmp_path, "x").vectors(rows)
    assert np.array_equal(first, again)
    with pytest.raises(AssertionError, match="it was loaded"):
        opened().loaded()
