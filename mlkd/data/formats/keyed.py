"""Formats with a file a language: messages that have the same key are a pair."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlkd.data.formats.sentences import sentence_pair
from mlkd.data.rows import Pair, Reject


def pairs_by_key(
    source: dict[str, str], target: dict[str, str], path: Path
) -> Iterator[Pair | Reject]:
    """Pairs in the order of the source file.

    Args:
        source: Messages by key.
        target: Messages by key; one that is as the source is not translated.
        path: The file of the translations, for the places.
    """
    for key, text in source.items():
        place = f"{path}:{key}"
        translation = target.get(key, "")
        if not text.strip() or not translation.strip() or translation.split() == text.split():
            yield Reject("untranslated", place, text)
        else:
            yield sentence_pair(text, translation, place)
    for key, text in target.items():
        if key not in source:
            yield Reject("obsolete", f"{path}:{key}", text)
