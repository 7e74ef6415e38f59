"""A frozen encoder in the step reads what the student reads, and stays as it is."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from architectures import write_mpnet
from conftest import ENGLISH, GERMAN, stored_tokens
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.utils.data import DataLoader

from mlkd.config.student import TrimConfig
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.encoders.forward import Encoded, Taps, encode
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.output.errors import UserError
from mlkd.student.trim import pieces_to_keep, trimmed
from mlkd.targets.live import LiveEncoder, own_ids

TEXTS = [*ENGLISH, *GERMAN, "une phrase 17"]
TAPS = Taps(hidden=frozenset({0, 2, 4}), attention=frozenset({1, 4}))
KINDS = pytest.mark.parametrize("kind", ["bert", "xlmr", "roberta"])


@pytest.fixture
def folder(request: pytest.FixtureRequest, kind: str) -> Path:
    """WordPiece, XLM-R's Unigram, byte-level BPE."""
    found: Path = request.getfixturevalue("encoder_folder" if kind == "bert" else kind)
    return found


def part_of(model: SentenceTransformer) -> SentenceTransformer:
    """The encoder with the pieces of three sentences."""
    ids = [i for row in model.tokenizer(ENGLISH[:3])["input_ids"] for i in row]
    counts = np.bincount(ids, minlength=backbone_of(model).config.vocab_size)
    keep = pieces_to_keep(model, {"en": counts}, TrimConfig(languages=["en"], min_share=0.001))
    return trimmed(model, keep)


def batch(model: SentenceTransformer) -> tuple[Tensor, Tensor]:
    """All texts, as training has them."""
    ids, mask = stored_tokens(model, TEXTS).padded(np.arange(len(TEXTS)))
    return torch.from_numpy(ids), torch.from_numpy(mask)


def same(one: Encoded, other: Encoded) -> bool:
    pairs = [(one.sentence, other.sentence)]
    pairs += [(one.hidden[layer], other.hidden[layer]) for layer in TAPS.hidden]
    pairs += [(one.attention[layer], other.attention[layer]) for layer in TAPS.attention]
    return all(torch.equal(a, b) for a, b in pairs)


@KINDS
@pytest.mark.parametrize("reloaded", [False, True])
def test_the_encoder_of_a_trimmed_student_reads_the_same_text(
    folder: Path, tmp_path: Path, reloaded: bool
) -> None:
    student = part_of(load_folder(folder))
    if reloaded:
        save_folder(student, tmp_path / "student")
        student = load_folder(tmp_path / "student")
    frozen = FrozenEncoder.open(folder, max_tokens=16)
    live = LiveEncoder.of(frozen, student.tokenizer)
    ids, mask = batch(student)
    assert live.own_ids is not None
    assert len(live.own_ids) < len(frozen.model.tokenizer)
    theirs = live.own_ids[ids]
    assert not torch.equal(theirs, ids)
    for row, other in zip(ids, theirs, strict=True):
        pieces = student.tokenizer.convert_ids_to_tokens(row)
        assert frozen.model.tokenizer.convert_ids_to_tokens(other) == pieces
    # Before its first step a trimmed student is the encoder, whatever the text is cut into.
    assert same(live.encode(ids, mask, TAPS), encode(student, ids, mask, TAPS))


@KINDS
def test_an_untrimmed_student_has_the_ids_of_the_encoder(folder: Path) -> None:
    student = load_folder(folder)
    live = LiveEncoder.of(FrozenEncoder.open(folder, max_tokens=16), student.tokenizer)
    assert live.own_ids is None
    assert same(live.encode(*batch(student), TAPS), encode(student, *batch(student), TAPS))


def test_pieces_are_found_wherever_they_stand(xlmr: Path) -> None:
    model = load_folder(xlmr)
    less = part_of(part_of(model))  # a part of a part
    ids, known = own_ids(less.tokenizer, model.tokenizer), model.tokenizer.get_vocab()
    assert all(ids[i] == known[piece] for piece, i in less.tokenizer.get_vocab().items())
    assert len(ids) == len(less.tokenizer)


def test_another_vocabulary_is_refused(encoder_folder: Path, xlmr: Path, tmp_path: Path) -> None:
    whole, less = load_folder(encoder_folder), part_of(load_folder(encoder_folder))
    save_folder(less, tmp_path / "less")
    encoder = FrozenEncoder.open(tmp_path / "less", max_tokens=16)
    with pytest.raises(UserError, match=r"has no piece '.*', which the student's has"):
        LiveEncoder.of(encoder, whole.tokenizer)
    other = FrozenEncoder.open(xlmr, max_tokens=16)
    with pytest.raises(UserError, match="treats text in another way"):
        LiveEncoder.of(other, whole.tokenizer)
    mpnet = FrozenEncoder.open(write_mpnet(tmp_path / "mpnet", ENGLISH), max_tokens=16)
    with pytest.raises(UserError, match="live encoder: model type mpnet is not supported"):
        LiveEncoder.of(mpnet, mpnet.model.tokenizer)


class Imitation(L.LightningModule):
    """Trains a student to have an encoder's token states."""

    def __init__(self, student: SentenceTransformer, live: LiveEncoder) -> None:
        super().__init__()
        self.model, self.live = student, live
        self.seen: list[bool] = []

    def training_step(self, given: tuple[Tensor, Tensor], index: int) -> Tensor:
        taps = Taps(sentence=False, hidden=frozenset({4}), attention=frozenset({4}))
        wanted, found = self.live.encode(*given, taps), encode(self.model, *given, taps)
        self.seen.append(any(m.training for m in self.live.encoder.model.modules()))
        assert not wanted.hidden[4].requires_grad
        hidden = torch.nn.functional.mse_loss(found.hidden[4], wanted.hidden[4])
        return hidden + torch.nn.functional.mse_loss(found.attention[4], wanted.attention[4])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_training_neither_changes_the_encoder_nor_keeps_it(
    encoder_folder: Path, tmp_path: Path
) -> None:
    student = part_of(load_folder(encoder_folder)).requires_grad_(True)
    frozen = FrozenEncoder.open(encoder_folder, max_tokens=16)
    before = deepcopy(frozen.model.state_dict())
    module = Imitation(student, LiveEncoder.of(frozen, student.tokenizer))
    module.train()
    trainer = L.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = deepcopy(student.state_dict())
    trainer.fit(module, DataLoader([batch(student)] * 2, batch_size=None))
    assert module.seen == [False, False]
    assert student.training
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert kept.keys() == {f"model.{name}" for name in student.state_dict()}
    assert any(not torch.equal(start[name], value) for name, value in student.state_dict().items())
    for name, value in frozen.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in frozen.model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_is_that_of_the_frozen_encoder(encoder_folder: Path, precision: str) -> None:
    frozen = FrozenEncoder.open(encoder_folder, max_tokens=16, precision=precision)
    live = LiveEncoder.of(frozen, frozen.model.tokenizer)
    found = live.encode(*batch(frozen.model), Taps()).sentence.float()
    wanted = torch.from_numpy(frozen.encode(TEXTS))
    assert torch.allclose(found, wanted, atol=1e-5 if precision == "fp32" else 3e-2)
    exact = FrozenEncoder.open(encoder_folder, max_tokens=16).encode(TEXTS)
    assert torch.allclose(found, torch.from_numpy(exact), atol=1e-5) == (precision == "fp32")
    with torch.autocast("cpu", torch.bfloat16):  # as in a training step in another precision
        again = live.encode(*batch(frozen.model), Taps()).sentence.float()
    assert torch.equal(again, found)
