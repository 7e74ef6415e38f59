"""Language codes and pairs: what is understood, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import configure
from omegaconf import OmegaConf
from pydantic import ValidationError

from mlkd.config.compose import validate
from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.config.languages import fill_languages, language_code, pair_code, spellings, split_pair
from mlkd.output.errors import UserError


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("de", "de"),
        ("no", "no"),
        ("ckb", "ckb"),
        ("pt-BR", "pt-BR"),
        ("pt_BR", "pt-BR"),
        ("PT-br", "pt-BR"),
        ("es-419", "es-419"),
        ("zh-hans", "zh-Hans"),
        ("zho_Hant", "zh-Hant"),
        ("sr@latin", "sr-Latn"),
        ("sr_RS@latin", "sr-Latn-RS"),
        ("ca@valencia", "ca-valencia"),
        ("deu", "de"),
        ("deu_Latn", "de"),
        ("iw", "he"),
        ("zh-yue", "yue"),
        ("sl-rozaj", "sl-rozaj"),
        ("qaa", "qaa"),
    ],
)
def test_a_code_in_its_standard_form(written: str, code: str) -> None:
    assert language_code(written) == code
    assert language_code(code) == code


@pytest.mark.parametrize(
    "written", ["xx", "", "de-", "German", "de@euro", "x-klingon", "en-a-foo", 5, None, "de en"]
)
def test_no_language(written: object) -> None:
    with pytest.raises(ValueError, match="is no language; allowed: BCP 47"):
        language_code(written)


@pytest.mark.parametrize(
    ("written", "code", "sides"),
    [
        ("en-de", "en-de", ("en", "de")),
        ("en-pt-BR", "en-pt-BR", ("en", "pt-BR")),
        ("pt_BR-en", "pt-BR-en", ("pt-BR", "en")),
        ("zh-Hans-zh-Hant", "zh-Hans-zh-Hant", ("zh-Hans", "zh-Hant")),
        ("en-sr@latin", "en-sr-Latn", ("en", "sr-Latn")),
        ("sr@latin-en", "sr-Latn-en", ("sr-Latn", "en")),
        ("ca-valencia-es-419", "ca-valencia-es-419", ("ca-valencia", "es-419")),
        ("en-deu", "en-de", ("en", "de")),
    ],
)
def test_a_pair_falls_apart_as_it_was_put_together(
    written: str, code: str, sides: tuple[str, str]
) -> None:
    assert pair_code(written) == code
    assert split_pair(code) == sides


@pytest.mark.parametrize("written", ["en", "en-pt-br", "EN-DE", "en-de-fr", "en-", "--"])
def test_no_pair(written: str) -> None:
    with pytest.raises(ValueError, match="is no pair of languages"):
        pair_code(written)


def test_opus_names_pairs_in_alphabetical_order() -> None:
    path = "{pair}/OpenSubtitles.{pair}.{target}"
    for source, target, expected in [
        ("en", "de", "de-en/OpenSubtitles.de-en.de"),
        ("en", "fr", "en-fr/OpenSubtitles.en-fr.fr"),
        ("en", "pt-BR", "en-pt_br/OpenSubtitles.en-pt_br.pt_br"),
        ("pt-BR", "en", "en-pt_br/OpenSubtitles.en-pt_br.en"),
    ]:
        sides = {"source": source, "target": target}
        assert fill_languages(path, sides, {"pt-BR": "pt_br"}) == expected
    # The order is that of what stands in the name.
    assert fill_languages("{pair}", {"a": "en", "b": "zh"}, {"zh": "cmn"}) == "cmn-en"
    assert fill_languages("{pair}.{lang}", {"a": "en", "b": "de", "lang": "en"}, {}) == "de-en.en"


def test_spellings() -> None:
    assert spellings("de") == ["de", "deu_Latn", "deu"]
    assert spellings("pt-BR")[:4] == ["pt-BR", "pt_BR", "pt-br", "pt_br"]
    assert {"sr@latin", "srp_Latn", "sr_Latn"} < set(spellings("sr-Latn"))
    for code in ("de", "zh-Hans", "sr-Latn-RS", "he"):
        # FLORES and POSIX have no way to write a region beside a script.
        understood = {language_code(spelling) for spelling in spellings(code)}
        assert code in understood
        assert {found.split("-")[0] for found in understood} == {code.split("-")[0]}


def test_the_schema_keeps_standard_codes() -> None:
    corpus = CorpusConfig.model_validate(
        {"format": "tsv", "targets": ["pt_BR", "sr@latin"], "codes": {"pt_BR": "pt_br"}}
    )
    assert corpus.targets == ["pt-BR", "sr-Latn"]
    assert corpus.codes == {"pt-BR": "pt_br"}
    with pytest.raises(ValidationError, match="codes is not read in the format demo"):
        CorpusConfig.model_validate({"format": "demo", "targets": ["de"], "codes": {"de": "deu"}})


def test_norwegian_is_understood_or_is_to_be_quoted(tmp_path: Path) -> None:
    data = configure("data=tsv", "data.corpora.pairs.targets=[no,sv]").data
    assert data.corpora["pairs"].targets == ["no", "sv"]

    def composed(targets: str) -> DataConfig:
        file = tmp_path / "data.yaml"
        file.write_text(f"corpora: {{c: {{format: demo, targets: {targets}}}}}")
        loaded = OmegaConf.load(file)
        assert OmegaConf.is_dict(loaded)
        return validate(loaded, DataConfig)

    assert composed('["no"]').corpora["c"].targets == ["no"]
    with pytest.raises(UserError) as caught:
        composed("[de, no]")
    assert str(caught.value) == ("corpora.c.targets.1: YAML reads no as False; put it in quotes")
