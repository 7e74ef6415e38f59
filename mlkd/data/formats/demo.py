"""The embedded corpus."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mlkd.data.demo import LANGUAGES
from mlkd.data.formats.base import Wanted
from mlkd.data.rows import Pair, Reject

if TYPE_CHECKING:
    from mlkd.data.demo.grammar import DemoSentence

_FOLDER = Path(__file__).parents[1] / "demo"


def read(wanted: Wanted, files: list[Path]) -> Iterator[Pair | Reject]:
    """Its sentences, each with a domain of its own."""
    del files
    for language in (wanted.source, wanted.target):
        if language not in LANGUAGES:
            raise wanted.refuse(f"the demo corpus has no {language}; it has {', '.join(LANGUAGES)}")
    for number, sentence in enumerate(_sentences(), 1):
        place = f"demo:{number}"
        yield Pair(
            sentence.texts[wanted.source], sentence.texts[wanted.target], place, sentence.domain
        )


def find(wanted: Wanted, root: str | None, allow_download: bool) -> list[Path]:
    """What decides its sentences."""
    from mlkd.data.demo.grammar import LEXICON

    del wanted, root, allow_download
    lexicon = [_FOLDER / f"{kind}.tsv" for kind in LEXICON]
    return sorted([*_FOLDER.glob("*.py"), *_FOLDER.glob("*.txt"), *lexicon])


@cache
def _sentences() -> tuple[DemoSentence, ...]:
    """Made once for all languages: the grammar takes a second."""
    from mlkd.data.demo.grammar import sentences

    return tuple(sentences())
