"""What a page is made of: its runtime and its texts; free of torch, so that both are checked first.

No script is written or downloaded here: the runtime is what npm has put into a folder of the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mlkd.config.commands import ExportConfig
from mlkd.config.evaluation import EvalSetConfig
from mlkd.config.inputs import DataConfig
from mlkd.config.languages import language_code
from mlkd.config.paths import unpacked_name
from mlkd.data.cleaning import is_blank
from mlkd.data.demo import LANGUAGES
from mlkd.data.rows import table_rows, text_lines
from mlkd.deploy.source import Source, languages_of
from mlkd.metrics.set_files import read_demo
from mlkd.output.errors import UserError

_EXAMPLES = 5
"""Queries that the page offers, at most."""


class Text(NamedTuple):
    """A text that is searched; its language is a BCP 47 code, or "" where nobody says."""

    language: str
    text: str


@dataclass(frozen=True)
class Package:
    """A Node package that the page loads.

    Attributes:
        name: In the folder of packages.
        least: First version that fits,
        below: and the first one after it that may not.
        tried: The version that was.
        files: What is copied, by its name in the package: its name in the page's folder. Scripts
            end in ``.js`` there, which every web server calls JavaScript.
        licence: Its licence in the package; None where it has none and the page brings the text.
    """

    name: str
    least: tuple[int, int]
    below: tuple[int, int]
    tried: str
    files: dict[str, str]
    licence: str | None


PACKAGES = (
    Package(
        "onnxruntime-web", (1, 30), (2, 0), "1.30.0",
        {"dist/ort.wasm.bundle.min.mjs": "onnxruntime.js",
         "dist/ort-wasm-simd-threaded.wasm": "onnxruntime.wasm"},
        None,
    ),
    Package(
        "@huggingface/tokenizers", (0, 2), (0, 3), "0.2.0",
        {"dist/tokenizers.min.mjs": "tokenizers.js"},
        "LICENSE",
    ),
)  # fmt: skip
INSTALL = "npm install " + " ".join(f"{package.name}@{package.tried}" for package in PACKAGES)
"""What makes a folder of packages that were tried."""


def check_page(config: ExportConfig, source: Source) -> None:
    """Refuse a runtime or texts that are not there or do not fit.

    Raises:
        UserError: One of them; see :func:`runtime_of` and :func:`texts_of`.
    """
    assert config.web is not None
    runtime_of(config.web.runtime)
    texts_of(config, source)


def runtime_of(folder: str) -> dict[str, str]:
    """Versions of the packages in a folder, by name.

    Raises:
        UserError: A package or a file of it is missing, or its version does not fit.
    """
    found = {}
    for package in PACKAGES:
        place = Path(folder, package.name)
        try:
            about = json.loads((place / "package.json").read_text(encoding="utf-8"))
            version = str(about["version"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"web.runtime={folder}: no package {package.name} in it; "
                f"give the node_modules that `{INSTALL}` makes"
            ) from None
        numbers = re.match(r"([0-9]{1,9})\.([0-9]{1,9})\.", version)
        if not (numbers and package.least <= tuple(map(int, numbers.groups())) < package.below):
            (a, b), (c, d) = package.least, package.below
            raise UserError(
                f"web.runtime={folder}: {package.name} is {version!r}; allowed: from {a}.{b}, "
                f"below {c}.{d}; tried: {package.tried}"
            )
        for name in (*package.files, *filter(None, [package.licence])):
            if not (place / name).is_file():
                raise UserError(f"web.runtime={folder}: {package.name} {version} has no {name}")
        found[package.name] = version
    return found


def texts_of(config: ExportConfig, source: Source) -> tuple[list[Text], list[Text]]:
    """The texts that are searched, and queries that the page offers.

    Raises:
        UserError: The file has none, or lines that are no text; or none is given, and no embedded
            sentence is in a language of the student.
    """
    assert config.web is not None
    if config.web.texts is not None:
        texts = read_texts(Path(config.web.texts))
        return texts, _one_a_language(texts)
    spoken = _spoken(config, source)
    languages = [language for language in LANGUAGES if not spoken or language in spoken]
    if not languages:
        raise UserError(
            f"web.texts: the embedded sentences are in {', '.join(LANGUAGES)}, the student is for "
            f"{', '.join(spoken)}; give a text file"
        )
    held_out = EvalSetConfig(kind="bitext", split="test", format="demo", languages=[*LANGUAGES])
    others = EvalSetConfig(kind="sts", split="dev", format="demo", languages=[*LANGUAGES])
    texts = [Text(x, text) for x in languages for text in _demo(held_out, x)]
    return texts, [
        Text(x, text) for i, x in enumerate(languages) for text in _demo(others, x)[i : i + 1]
    ]


def read_texts(path: Path) -> list[Text]:
    """The distinct texts of a file, with single spaces for white space.

    Raises:
        UserError: There is no such file, it has no texts, or a line is no text or, in a ``.tsv``,
            no language and a text.
    """
    if not path.is_file():
        raise UserError(f"web.texts={path}: no such file; give a text file, a sentence a line")
    is_table = unpacked_name(path).suffix.lower() == ".tsv"
    read = _with_language if is_table else _alone
    texts = list(dict.fromkeys(text for text in read(path) if not is_blank(text.text)))
    if not texts:
        raise UserError(f"web.texts={path}: it has no texts")
    return texts


def _alone(path: Path) -> Iterator[Text]:
    for _, line in text_lines(path):
        yield Text("", " ".join(line.split()))


def _with_language(path: Path) -> Iterator[Text]:
    for place, cells in table_rows(path):
        if all(map(is_blank, cells)):
            continue
        if len(cells) != 2:
            raise UserError(f"web.texts: {place}: {len(cells)} columns, not language and text")
        try:
            yield Text(language_code(cells[0].strip()), " ".join(cells[1].split()))
        except ValueError as error:
            raise UserError(f"web.texts: {place}: {error}") from None


def _one_a_language(texts: Sequence[Text]) -> list[Text]:
    """The first text of each language."""
    first: dict[str, Text] = {}
    for text in texts:
        first.setdefault(text.language, text)
    return list(first.values())[:_EXAMPLES]


def _spoken(config: ExportConfig, source: Source) -> list[str]:
    """Languages that the student keeps; none where nobody says."""
    if config.trim is not None and config.trim.languages is not None:
        return list(config.trim.languages)
    own = config.data if config.trim is not None else None
    return languages_of(own or source.section("data", DataConfig))


def _demo(one: EvalSetConfig, language: str) -> list[str]:
    _, rows = read_demo("web", one, language, language)
    return [cells[0] for cells in rows.values()]
