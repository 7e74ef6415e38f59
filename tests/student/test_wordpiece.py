"""Vocabularies of scripts with thousands of characters, and of scripts without spaces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ENGLISH, GERMAN, wordpiece, write_encoder
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mlkd.deploy.dense import write_description
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.student.coverage import coverage
from mlkd.student.trim import trimmed
from mlkd.student.wordpiece import (
    Spelling,
    cut_into_runs,
    is_cut_into_runs,
    learned_wordpiece,
    ranked_characters,
)

THAI = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ"
"""Article 1 of the Universal Declaration of Human Rights, in Thai,"""
KHMER = "មនុស្សទាំងអស់កើតមកមានសេរីភាពនិងសមភាពក្នុងផ្នែកសេចក្ដីថ្លៃថ្នូរ"
LAO = "ມະນຸດເກີດມາມີສິດເສລີພາບແລະສະເໝີໜ້າກັນໃນທາງກຽດຕິສັກ"
BURMESE = "လူတိုင်းသည်တူညီလွတ်လပ်သောဂုဏ်သိက္ခာဖြင့်လည်းကောင်း"
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"
HAN = [chr(0x4E00 + i) for i in range(2000)]
CHINESE = ["".join(HAN[: 2000 // n]) for n in range(1, 11)]
"""The first characters are the most frequent."""


@pytest.fixture(scope="module")
def english() -> PreTrainedTokenizerBase:
    return wordpiece(ENGLISH)


def learn(
    old: PreTrainedTokenizerBase, size: int, keep: bool = True, **texts: list[str]
) -> PreTrainedTokenizerBase:
    sentences = [(language, text) for language, mine in texts.items() for text in mine]
    return learned_wordpiece(old, size, sentences, keep=keep)


def words(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    backend = tokenizer.backend_tokenizer
    normal = backend.normalizer.normalize_str(text)
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]


def new_pieces(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase, keep: bool) -> set[str]:
    return set(new.get_vocab()) - (set(old.get_vocab()) if keep else set())


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("size", [100, 300, 1000, 2500])
def test_characters_take_a_share_and_no_piece_is_useless(
    english: PreTrainedTokenizerBase, keep: bool, size: int
) -> None:
    learned = learn(english, size, keep, zh=CHINESE, de=GERMAN)
    new = new_pieces(english, learned, keep)
    assert len(new) <= size
    single = [p[2] for p in new if len(p) == 3 and p.startswith("##")]
    assert len(single) > 10
    for inside in single:
        assert any(inside in word[1:] for word in words(learned, f"d{inside}d")), inside
    # The most frequent characters: those that fit, and more where merges leave room.
    han = [c for c in HAN if c in new]
    assert han == HAN[: len(han)]
    assert learned.get_vocab() == learn(english, size, keep, zh=CHINESE, de=GERMAN).get_vocab()
    if size >= 300:
        assert len(han) >= (2000 if size == 2500 else size // 2 - 100)
        assert learned.tokenize(HAN[0] + HAN[1]) == [HAN[0], HAN[1]]
        alone = learn(english, size, keep, de=GERMAN)
        assert [learned.tokenize(t) for t in GERMAN] == [alone.tokenize(t) for t in GERMAN]


def test_characters_are_ranked_by_their_share_of_a_language() -> None:
    # b is 1/4 of the large language; c a half of the small one, d a fourth of it and so is e.
    large, small = "aaab" * 100, "ccde"
    assert ranked_characters([("xx", large), ("yy", small)], str) == ["a", "c", "b", "d", "e"]
    # Blanks count in the whole, and are no characters: f is 1/5 of its language.
    assert ranked_characters([("zz", "f    "), ("xx", large)], str) == ["a", "b", "f"]


def test_a_small_language_is_not_crowded_out(english: PreTrainedTokenizerBase) -> None:
    learned = learn(english, 400, zh=CHINESE * 50, th=[THAI])
    assert "[UNK]" not in learned.tokenize(THAI)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("text", [THAI, KHMER, LAO, BURMESE, JAPANESE])
def test_words_without_spaces_have_any_length(
    english: PreTrainedTokenizerBase, text: str, keep: bool
) -> None:
    learned = learn(english, 400, keep, xx=[text] * 3)
    assert learned.tokenize(text) != list(text)
    for times in (1, 2, 10, 1000):
        tokens = learned.tokenize(text * times)
        assert "[UNK]" not in tokens
        letters = "".join(token.removeprefix("##") for token in tokens)
        assert letters == Spelling(learned.backend_tokenizer).normalise(text * times).replace(
            " ", ""
        )


def test_a_character_without_a_piece_is_unknown_by_itself(
    english: PreTrainedTokenizerBase,
) -> None:
    learned = learn(english, 400, th=[THAI] * 3)
    before, after = learned.tokenize(THAI), learned.tokenize(f"{THAI}😀{THAI}")
    assert after == [*before, "[UNK]", *before]
    # The longest word is cut at 100 characters, none of which is lost.
    assert learned.tokenize("ม" * 250) == [
        x for n in (100, 100, 50) for x in learned.tokenize("ม" * n)
    ]


def test_texts_with_spaces_are_cut_as_before(english: PreTrainedTokenizerBase) -> None:
    old = json.loads(english.backend_tokenizer.to_str())
    for keep in (True, False):
        state = json.loads(learn(english, 400, keep, de=GERMAN).backend_tokenizer.to_str())
        assert not is_cut_into_runs(state)
        assert state["pre_tokenizer"] == old["pre_tokenizer"]
    state = json.loads(learn(english, 400, th=[THAI]).backend_tokenizer.to_str())
    assert is_cut_into_runs(state)
    assert cut_into_runs(state) == state["pre_tokenizer"]  # doing it twice is doing it once


def test_folders_keep_the_cut(tmp_path: Path, english: PreTrainedTokenizerBase) -> None:
    model = load_folder(write_encoder(tmp_path, english, depth=1))
    learned = learn(english, 400, th=[THAI])
    model[0].processor = learned
    save_folder(model, tmp_path / "saved")
    text = f"{THAI * 3}😀 the dog"
    expected = learned(text).input_ids
    assert learned.unk_token_id in expected
    assert load_folder(tmp_path / "saved").tokenizer(text).input_ids == expected
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")(text).input_ids == expected
    assert Tokenizer.from_file(str(tmp_path / "saved/tokenizer.json")).encode(text).ids == expected


def test_a_ready_encoder_reads_words_of_any_length(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, wordpiece([THAI, " ".join(THAI)], unused=1), depth=1)
    plain, model = AutoTokenizer.from_pretrained(folder), load_folder(folder)
    text = THAI * 4
    assert plain.unk_token in plain.tokenize(text)
    for sentence in (*ENGLISH, THAI, f"{THAI}! {THAI}"):
        assert model.tokenizer.tokenize(sentence) == plain.tokenize(sentence)
    pieces = model.tokenizer.tokenize(text)
    assert plain.unk_token not in pieces
    letters = Spelling(plain.backend_tokenizer).normalise(text)
    assert "".join(piece.removeprefix("##") for piece in pieces) == letters

    keep = np.ones(len(plain), bool)
    keep[1] = False
    cut = trimmed(model, keep)
    assert cut.tokenizer.tokenize(text) == pieces
    for name, encoder in (("whole", model), ("cut", cut)):
        save_folder(encoder, tmp_path / name)
        write_description(encoder, tmp_path / f"{name}-plain")
        for saved in (tmp_path / name, tmp_path / f"{name}-plain"):
            assert AutoTokenizer.from_pretrained(saved).tokenize(text) == pieces
            state = Tokenizer.from_file(str(saved / "tokenizer.json"))
            assert state.encode(text, add_special_tokens=False).tokens == pieces
        again = load_folder(tmp_path / name).tokenizer.backend_tokenizer.to_str()
        assert again == encoder.tokenizer.backend_tokenizer.to_str()  # not once more at each load


def test_a_ready_encoder_keeps_the_ends_at_which_it_fills_up_and_cuts(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, wordpiece([THAI, " ".join(THAI)], unused=1), depth=1)
    plain = AutoTokenizer.from_pretrained(folder, padding_side="left", truncation_side="left")
    plain.save_pretrained(folder)
    loaded = load_folder(folder).tokenizer
    texts, how = [*ENGLISH, " ".join(ENGLISH)], {"padding": True, "truncation": True}
    assert dict(loaded(texts, max_length=8, **how)) == dict(plain(texts, max_length=8, **how))
    assert loaded.model_input_names == plain.model_input_names


def test_coverage_of_a_language() -> None:
    tokenizer = wordpiece(["ab ab ab cd"])
    tokens = tokenizer.tokenize("ab ab")
    assert tokens == ["ab", "ab"]
    found = coverage(tokenizer, ["ab ab", "ab ßß ab ß"])
    # 5 + 10 characters; ßß and ß are a token each of 2 + 4; 3 of 8 + 3 letters have no piece.
    assert found.characters_per_token == 15 / 6
    assert found.unknown == pytest.approx(100 * 2 / 6)
    assert (found.lacks, found.examples) == (1, "ß")
    assert found.lacking == pytest.approx(100 * 3 / 11)
    assert str(found) == (
        "2.50 characters a token, 33.33 % unknown; "
        "1 character has no piece (27.27 % of its text: ß)"
    )
    assert str(coverage(tokenizer, ["ab ab"])) == "2.50 characters a token, 0.00 % unknown"
