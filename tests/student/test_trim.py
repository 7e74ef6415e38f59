from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import write_roberta, write_xlmr
from conftest import ENGLISH, GERMAN, wordpiece, write_encoder
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from students import export, small

from mlkd.config.schema import TrainConfig
from mlkd.config.student import TrimConfig, VocabularyConfig
from mlkd.data.pairs import prepare_pairs
from mlkd.data.tokens import tokenise
from mlkd.deploy.source import assistant_of
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.output.errors import UserError
from mlkd.recipes.run import run_chain
from mlkd.student.trim import is_kept, language_counts, pieces_to_keep, trimmed
from mlkd.student.vocabulary import assistant_from_teacher

SIGNS = [*"@£€¥+$%&#!?.,;:'\"()[]{}<>/*=_~^|\\-0123456789«»„“”’–…ÇçéèàâêîôûüöäñãõåøßÀÉÜÖÄÑ"]
WHOLE = pytest.param("xlmr_full", marks=[pytest.mark.slow, pytest.mark.by_hand])
KINDS = ["bert", "bottleneck", "xlmr", WHOLE, "roberta"]


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, encoder_folder: Path) -> SentenceTransformer:
    """WordPiece, XLM-R's Unigram, byte-level BPE; a bottleneck."""
    if request.param == "bottleneck":
        return small(encoder_folder, 4, layers=2, recurrence=2)
    named = request.param != "bert"
    return load_folder(request.getfixturevalue(request.param) if named else encoder_folder)


def counts(model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    ids = [i for row in model.tokenizer(texts)["input_ids"] for i in row]
    return np.bincount(ids, minlength=backbone_of(model).config.vocab_size)


def word_table(model: SentenceTransformer) -> torch.Tensor:
    words = backbone_of(model).get_input_embeddings()
    return (words.table if hasattr(words, "table") else words).weight.detach()


def test_text_whose_pieces_are_kept_has_the_same_vectors(
    model: SentenceTransformer, tmp_path: Path
) -> None:
    config = TrimConfig(languages=["en"], min_share=0.001)
    texts = ENGLISH[:3]
    keep = pieces_to_keep(model, {"en": counts(model, texts), "de": counts(model, GERMAN)}, config)
    less = trimmed(model, keep)
    old, new = model.tokenizer, less.tokenizer
    assert keep.sum() < len(keep)
    # Ids are dense, every special token survives, and a row is that of the same piece.
    vocabulary = new.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert {t.content for t in old.added_tokens_decoder.values()} <= set(vocabulary)
    for piece, index in vocabulary.items():
        row = word_table(model)[old.get_vocab()[piece]]
        assert torch.equal(word_table(less)[index], row), piece
    for text in texts:
        assert new.tokenize(text) == old.tokenize(text)
    assert (less.encode(texts) == model.encode(texts)).all()
    assert is_kept(old, keep, texts).all()
    save_folder(less, tmp_path / "less")
    assert (load_folder(tmp_path / "less").encode(texts) == model.encode(texts)).all()


def test_other_text_is_spelled(encoder_folder: Path) -> None:
    model = load_folder(encoder_folder)
    keep = pieces_to_keep(model, {"en": counts(model, ENGLISH)}, TrimConfig(min_share=0.001))
    assert not is_kept(model.tokenizer, keep, GERMAN).all()
    tokens = trimmed(model, keep).tokenizer.tokenize("der hund")
    assert "[UNK]" not in tokens
    assert len(tokens) > len(model.tokenizer.tokenize("der hund"))


def with_signs(kind: str, folder: Path) -> SentenceTransformer:
    """An encoder of each tokenizer whose vocabulary has signs that English text does not have."""
    texts = [*ENGLISH, *GERMAN, " ".join(SIGNS), " ".join(f"x{sign}" for sign in SIGNS)]
    if kind == "unigram":
        return load_folder(write_xlmr(folder, texts, rows=500))
    if kind == "bytes":
        return load_folder(write_roberta(folder, texts))
    old = wordpiece(ENGLISH)
    model = load_folder(write_encoder(folder, old, depth=1))
    config = VocabularyConfig(size=400, keep_teacher=kind == "kept")
    learned_from = [("de", text) for text in texts]
    return assistant_from_teacher(model, config, lambda: learned_from, lambda: [])


@pytest.mark.parametrize("kind", ["kept", "anew", "unigram", "bytes"])
def test_signs_digits_and_accents_stay(kind: str, tmp_path: Path) -> None:
    model = with_signs(kind, tmp_path)
    before = model.tokenizer
    texts = [*SIGNS, *(f"x{sign}" for sign in SIGNS), "£20 + €23", "Ça va", "me@home", "50%"]
    known = [text for text in texts if before.unk_token_id not in before(text).input_ids]
    assert len(known) > len(texts) / 2
    seen = counts(model, ["the red dog"])
    keep = pieces_to_keep(model, {"en": seen}, TrimConfig(min_share=0.2))
    after = trimmed(model, keep).tokenizer
    assert len(after) < len(before)
    for text in known:
        assert after.unk_token_id not in after(text).input_ids, text


def test_a_trimmed_vocabulary_cuts_where_it_has_no_piece(tmp_path: Path) -> None:
    model = load_folder(write_encoder(tmp_path, wordpiece(ENGLISH), depth=1))
    config = VocabularyConfig(size=300)
    thai = "มนุษย์ทั้งหลายเกิดมามีอิสระ"
    model = assistant_from_teacher(
        model, config, lambda: [("th", thai), ("th", "ฮ")], lambda: [("the dog", thai)]
    )
    assert "[UNK]" not in model.tokenizer.tokenize(f"{thai}ฮ{thai}")
    after = trimmed(
        model, pieces_to_keep(model, {"th": counts(model, [thai])}, TrimConfig(min_share=1e-6))
    ).tokenizer
    once = after.tokenize(thai)
    assert "[UNK]" not in once
    assert after.tokenize(f"{thai}ฮ{thai}") == [*once, "[UNK]", *once]


def test_threshold_and_unknown_language(encoder_folder: Path) -> None:
    model = load_folder(encoder_folder)
    seen = {"en": counts(model, ENGLISH), "de": counts(model, GERMAN)}
    kept = [pieces_to_keep(model, seen, TrimConfig(min_share=s)).sum() for s in (1e-6, 0.05)]
    assert kept[1] < kept[0]
    with pytest.raises(UserError, match="hold no fr; allowed: de, en"):
        pieces_to_keep(model, seen, TrimConfig(languages=["fr"]))


def test_a_language_without_pairs_is_refused_before_any_training(
    tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"student\.trim\.languages: the pairs hold no fr; allowed"):
        run_chain(tiny("student.trim={languages: [fr]}"))
    assert not list((tmp_path / "out").glob("runs/*/run.json"))


def test_a_new_word_may_begin_with_any_character_of_the_vocabulary(xlmr: Path) -> None:
    model = load_folder(xlmr)
    keep = pieces_to_keep(model, {"en": counts(model, ENGLISH)}, TrimConfig(min_share=0.02))
    assert keep[model.tokenizer.convert_tokens_to_ids("▁")]


def test_counts_of_each_language_over_chunks(
    tiny: Callable[..., TrainConfig],
    encoder_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlkd.student.trim._CHUNK", 7)
    model = load_folder(encoder_folder)
    pairs = prepare_pairs(tiny().data, [], tmp_path / "cache")
    assert pairs.n_sentences > 14
    tokens = tokenise(pairs, model.tokenizer, 128, tmp_path / "cache")
    found = language_counts(pairs, tokens, backbone_of(model).config.vocab_size)
    assert sorted(found) == ["de", "en"]
    for number, language in enumerate(pairs.languages):
        texts = pairs.texts(np.flatnonzero(pairs.language == number))
        assert (found[language] == counts(model, texts)).all()


def test_an_export_of_some_languages(chain: dict[str, Path], tmp_path: Path) -> None:
    run, assistant = chain["contrastive"], chain["assistant"]
    assert assistant_of(run) == assistant / "student"
    assert assistant_of(assistant) is None
    trim: Any = {"languages": ["en"], "min_share": 0.002}
    out = export(run, tmp_path / "exported", "portable", trim=trim, max_loss=100.0)
    report = json.loads((out / "portable/export.json").read_text())["trim"]
    assert report["kept"] < report["pieces"]
    assert report["compared"] > 100
    assert report["tokens"] == {"en": pytest.approx(100)}
    card = ModelCard.load(out / "portable/README.md")
    assert card.data.language == ["en"]
    assert f"trimmed to {report['kept']:,} of {report['pieces']:,} pieces" in card.text
    assert load_folder(out / "portable").tokenizer.vocab_size == report["kept"]
    texts = [f"{text} 7" for text in ENGLISH]
    expected = load_folder(run / "student").encode(texts)
    assert np.abs(load_folder(out / "portable").encode(texts) - expected).max() <= 1e-5


def test_a_student_may_be_trimmed(
    tiny: Callable[..., TrainConfig], assistant: Path, tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    run_chain(tiny("student.trim={min_share: 0.01}"))
    rows = {}
    for stage in ("assistant", "contrastive"):
        (folder,) = (tmp_path / "out/runs").glob(f"{stage}-*")
        weights = load_file(folder / "student/model.safetensors")
        rows[stage] = max(len(t) for name, t in weights.items() if "word_embeddings" in name)
    assert rows["contrastive"] < rows["assistant"]


def test_no_trimming_leaves_the_name_of_a_run_as_it_was(
    tiny: Callable[..., TrainConfig],
) -> None:
    student = tiny().student
    assert set(student.model_dump(exclude_defaults=True)) == {"bottleneck", "layers", "recurrence"}
