"""The multilingual vocabulary of an assistant made from the teacher, and where its rows start."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
import torch
from conftest import ENGLISH, GERMAN, wordpiece, write_encoder
from sentence_transformers import SentenceTransformer

from mlkd.config.student import VocabularyConfig
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.folder import load_folder
from mlkd.student.vocabulary import assistant_from_teacher, subword_rows
from mlkd.student.word_alignment import aligned_rows

PAIRS = list(zip(ENGLISH, GERMAN, strict=True))


@pytest.fixture(scope="module")
def english_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder that knows no German piece, and is uncased as MiniLM is."""
    return write_encoder(tmp_path_factory.mktemp("english"), wordpiece(ENGLISH), depth=1)


def grown(folder: Path, **settings: object) -> tuple[SentenceTransformer, SentenceTransformer]:
    teacher = load_folder(folder)
    config = VocabularyConfig.model_validate({"size": 100, "keep_teacher": True} | settings)
    learned_from = [("de", text) for text in GERMAN]
    if not config.keep_teacher:
        learned_from += [("en", text) for text in ENGLISH]
    return teacher, assistant_from_teacher(teacher, config, lambda: learned_from, lambda: PAIRS)


def table(model: SentenceTransformer) -> torch.Tensor:
    return backbone_of(model).get_input_embeddings().weight.detach()


def test_the_teachers_pieces_keep_their_ids_and_rows(english_encoder: Path) -> None:
    teacher, assistant = grown(english_encoder)
    old, new = teacher.tokenizer.get_vocab(), assistant.tokenizer.get_vocab()
    assert len(new) > len(old)
    assert old.items() <= new.items()
    assert torch.equal(table(assistant)[: len(old)], table(teacher))
    same = [
        t for t in ENGLISH if teacher.tokenizer(t).input_ids == assistant.tokenizer(t).input_ids
    ]
    assert len(same) >= 3
    assert torch.equal(
        teacher.encode(same, convert_to_tensor=True), assistant.encode(same, convert_to_tensor=True)
    )


def test_accents_and_the_dotted_i_survive(english_encoder: Path) -> None:
    _, assistant = grown(english_encoder)
    pieces = assistant.tokenizer.tokenize("die schläft fährt")
    assert "ä" in "".join(pieces)
    assert "[UNK]" not in assistant.tokenizer.tokenize("läuft schläft")
    assert assistant.tokenizer.tokenize("İhr") == assistant.tokenizer.tokenize("ihr")
    assert "[UNK]" not in assistant.tokenizer.tokenize("ihr")
    decomposed = unicodedata.normalize("NFD", "die schläft fährt")
    assert assistant.tokenizer.tokenize(decomposed) == pieces


@pytest.mark.parametrize("keep_teacher", [True, False])
def test_accented_letters_that_no_translation_has_are_known(
    english_encoder: Path, keep_teacher: bool
) -> None:
    teacher, assistant = grown(english_encoder, keep_teacher=keep_teacher)
    assert "é" not in "".join(ENGLISH + GERMAN)
    ids = assistant.tokenizer.get_vocab()
    assert "[UNK]" not in assistant.tokenizer.tokenize("thé É")
    old = teacher.tokenizer.get_vocab()
    assert torch.equal(table(assistant)[ids["é"]], table(teacher)[old["e"]])
    assert torch.equal(table(assistant)[ids["##é"]], table(teacher)[old["##e"]])


@pytest.mark.parametrize("keep_teacher", [True, False])
def test_sentences_begin_and_end_with_the_special_pieces(
    tmp_path: Path, keep_teacher: bool
) -> None:
    folder = write_encoder(tmp_path, wordpiece(ENGLISH, unused=7), depth=1)
    _, assistant = grown(folder, keep_teacher=keep_teacher)
    ids = assistant.tokenizer.get_vocab()
    assert ids["[CLS]"] == (9 if keep_teacher else 2)
    first, *pieces, last = assistant.tokenizer(GERMAN[0]).input_ids
    assert (first, last) == (ids["[CLS]"], ids["[SEP]"])
    assert pieces == [ids[piece] for piece in assistant.tokenizer.tokenize(GERMAN[0])]


def test_a_teacher_without_a_normaliser_can_be_extended(
    english_encoder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(english_encoder, tmp_path / "plain")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": None}))
    teacher, assistant = grown(folder)
    assert len(assistant.tokenizer) > len(teacher.tokenizer)


def test_growing_twice_gives_the_same_vocabulary(english_encoder: Path) -> None:
    for keep_teacher in (True, False):
        twice = [grown(english_encoder, keep_teacher=keep_teacher)[1] for _ in range(2)]
        first, second = (assistant.tokenizer.get_vocab() for assistant in twice)
        assert first == second


def test_a_new_row_is_the_mean_of_the_pieces_that_spell_it() -> None:
    old = wordpiece(["ab cd"])
    new = wordpiece(["abcd abcd abcd"])
    rows = torch.randn(len(old), 5)
    vocabulary = old.get_vocab()
    assert {"ab", "##d"} <= vocabulary.keys()
    made = subword_rows(rows, old, new)[new.get_vocab()["abcd"]]
    unknown = "##c" not in vocabulary  # then the c is left out
    spelled = ["ab", "##d"] if unknown else ["ab", "##c", "##d"]
    if "##cd" in vocabulary:
        spelled = ["ab", "##cd"]
    assert torch.allclose(made, rows[[vocabulary[piece] for piece in spelled]].mean(0))


def test_an_aligned_row_is_the_mean_of_its_translations() -> None:
    tokenizer = wordpiece(["dog cat hund katze"] * 3)
    ids = tokenizer.get_vocab()
    assert {"dog", "cat", "hund", "katze"} <= ids.keys()
    rows = torch.randn(len(ids), 5)
    fresh = torch.zeros(len(ids), dtype=torch.bool)
    fresh[[ids["hund"], ids["katze"]]] = True
    result = aligned_rows(rows, fresh, tokenizer, [("dog", "hund")] * 3 + [("cat", "katze")])
    # Three occurrences of dog against one of the spelled row, at the spelled row's length.
    mixed = (3 * rows[ids["dog"]] + rows[ids["hund"]]) / 4
    expected = mixed / mixed.norm() * rows[ids["hund"]].norm()
    assert torch.allclose(result[ids["hund"]], expected, atol=1e-6)
    assert torch.equal(result[~fresh], rows[~fresh])


def test_alignment_tells_words_of_a_sentence_apart() -> None:
    english, german = ["dog", "cat", "bird"], ["hund", "katze", "vogel"]
    tokenizer = wordpiece([" ".join(english + german)] * 3)
    ids = tokenizer.get_vocab()
    assert set(english + german) <= ids.keys()
    rows = torch.eye(len(ids))
    fresh = torch.zeros(len(ids), dtype=torch.bool)
    fresh[[ids[word] for word in german]] = True
    both = [(0, 1), (1, 2), (2, 0)] * 4
    pairs = [
        (f"{english[a]} {english[b]}", f"{german[b]} {german[a]}") for a, b in both
    ]  # word order is no help
    result = aligned_rows(rows, fresh, tokenizer, pairs)
    for left, right in zip(english, german, strict=True):
        weights = result[ids[right]][[ids[word] for word in english]]
        assert int(weights.argmax()) == english.index(left)
        assert weights.max() > 2 * weights.sort().values[-2]


def test_aligned_is_a_choice_of_the_configuration(english_encoder: Path) -> None:
    teacher, spelled = grown(english_encoder)
    _, aligned = grown(english_encoder, rows="aligned")
    old = len(teacher.tokenizer)
    assert torch.equal(table(aligned)[:old], table(spelled)[:old])
    assert not torch.equal(table(aligned)[old:], table(spelled)[old:])


@pytest.mark.parametrize("keep_teacher", [True, False])
@pytest.mark.parametrize("size", [100, 130])
def test_the_size_bounds_what_is_new(english_encoder: Path, size: int, keep_teacher: bool) -> None:
    teacher, assistant = grown(english_encoder, size=size, keep_teacher=keep_teacher)
    old = set(teacher.tokenizer.get_vocab()) if keep_teacher else set()
    assert len(set(assistant.tokenizer.get_vocab()) - old) <= size


@pytest.mark.parametrize("kind", ["xlmr", "roberta"])
def test_other_tokenizers_are_learned_anew_within_the_size(
    request: pytest.FixtureRequest, kind: str
) -> None:
    teacher = load_folder(request.getfixturevalue(kind))
    config = VocabularyConfig(size=400, keep_teacher=False)
    chinese = "".join(chr(0x4E00 + i) for i in range(1000))
    texts = [("zh", chinese), *(("de", text) for text in GERMAN * 20)]
    assistant = assistant_from_teacher(teacher, config, lambda: texts, lambda: [])
    vocabulary = assistant.tokenizer.get_vocab()
    assert len(vocabulary) <= 400
    assert len(assistant.tokenizer.tokenize(GERMAN[0])) < len(GERMAN[0].replace(" ", ""))
    assert assistant.encode(["", GERMAN[0], chinese]).shape[0] == 3
