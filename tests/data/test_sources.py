"""Where the files of a corpus are: languages in paths and names of columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlkd.config.inputs import CorpusConfig, DataConfig
from mlkd.data.pairs import prepare_pairs
from mlkd.data.readers import read
from mlkd.data.rows import Row
from mlkd.data.sources import count_rows, source_files
from mlkd.output.errors import UserError


def rows(root: Path, target: str, **corpus: Any) -> list[tuple[str, str, str, str]]:
    config = CorpusConfig.model_validate({"targets": [target], **corpus})
    (code,) = config.targets
    files = source_files("c", config, code, str(root))
    items = list(read("c", config, code, files))
    assert count_rows(config, files) == len(items)
    found = [item for item in items if isinstance(item, Row)]
    assert len(found) == len(items)
    return [(row.source, row.target, row.source_lang, row.target_lang) for row in found]


def refused(root: Path, target: str, **corpus: Any) -> str:
    with pytest.raises(UserError) as caught:
        rows(root, target, **corpus)
    return str(caught.value).replace(f"{root}/", "")


def test_moses_files_as_opus_names_them(tmp_path: Path) -> None:
    for pair in ("de-en", "en-fr", "en-pt_br"):
        for language in pair.split("-"):
            (tmp_path / f"Books.{pair}.{language}").write_text(
                f"One {language}.\nTwo {language}.\n"
            )
    corpus = {
        "format": "aligned",
        "path": "Books.{pair}.{source}",
        "target_path": "Books.{pair}.{target}",
        "codes": {"pt-BR": "pt_br"},
    }
    for target, written in (("de", "de"), ("fr", "fr"), ("pt_BR", "pt_br")):
        code = target.replace("_", "-")
        assert rows(tmp_path, target, **corpus) == [
            ("One en.", f"One {written}.", "en", code),
            ("Two en.", f"Two {written}.", "en", code),
        ]


def test_codes_name_columns_too(tmp_path: Path) -> None:
    (tmp_path / "all.tsv").write_text("eng\tdeu\tfra\nRain\tRegen\tPluie\n")
    corpus = {"format": "tsv", "path": "all.tsv", "header": True}
    names = {"columns": ["{source}", "{target}"], "codes": {"en": "eng", "de": "deu", "fr": "fra"}}
    assert rows(tmp_path, "fr", **corpus, **names) == [("Rain", "Pluie", "en", "fr")]
    assert rows(tmp_path, "de", **corpus, **names) == [("Rain", "Regen", "en", "de")]


def test_a_source_other_than_english(tmp_path: Path) -> None:
    (tmp_path / "pairs.de-fr.tsv").write_text("Regen\tPluie\n")
    corpus = {"format": "tsv", "path": "pairs.{source}-{target}.tsv", "source": "de"}
    assert rows(tmp_path, "fr", **corpus) == [("Regen", "Pluie", "de", "fr")]


@pytest.mark.parametrize(
    ("file", "target", "codes"),
    [
        ("en-pt_BR.tsv", "pt-BR", "{pt-BR:pt_BR}"),
        ("en-sr@latin.tsv", "sr-Latn", "{sr-Latn:sr@latin}"),
        ("eng-deu.tsv", "de", "{en:eng,de:deu}"),
        ("eng_Latn-zho_Hans.tsv", "zh-Hans", "{en:eng_Latn,zh-Hans:zho_Hans}"),
    ],
)
def test_files_that_write_a_language_otherwise(
    tmp_path: Path, file: str, target: str, codes: str
) -> None:
    (tmp_path / file).write_text("Rain\tX\n")
    corpus = {"format": "tsv", "path": "{source}-{target}.tsv"}
    assert refused(tmp_path, target, **corpus) == (
        f"data.corpora.c.codes: no en-{target}.tsv; '+data.corpora.c.codes={codes}' finds the one "
        "that is there"
    )
    given = dict(item.split(":") for item in codes.strip("{}").split(","))
    assert rows(tmp_path, target, **corpus, codes=given) == [("Rain", "X", "en", target)]


def test_a_file_that_is_not_there_at_all(tmp_path: Path) -> None:
    message = refused(tmp_path, "de", format="tsv", path="{source}-{target}.tsv")
    assert message == ("data.corpora.c: no en-de.tsv; set data.root or data.corpora.c.path")


def test_codes_are_part_of_what_a_store_is_made_of(tmp_path: Path) -> None:
    """They choose the columns that are read of one and the same file."""
    lines = [f"Rain {i}\tRegen {i}\tPluie {i}" for i in range(100)]
    (tmp_path / "x.tsv").write_text("\n".join(["en\tone\ttwo", *lines]))

    def store(column: str) -> Any:
        corpus = {
            "format": "tsv",
            "path": "x.tsv",
            "header": True,
            "targets": ["sl-rozaj-biske-1994"],
        }
        corpus |= {"columns": ["en", "{target}"], "codes": {"sl-rozaj-biske-1994": column}}
        data = DataConfig.model_validate({"root": str(tmp_path), "corpora": {"c": corpus}})
        return prepare_pairs(data.model_copy(update={"dev_fraction": 0.2}), [], tmp_path / "cache")

    one, two = store("one"), store("two")
    assert one.languages == ["en", "sl-1994-biske-rozaj"]
    assert one.text(one.translation[0]).startswith("Regen")
    assert two.text(two.translation[0]).startswith("Pluie")
