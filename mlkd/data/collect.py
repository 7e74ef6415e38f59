"""First pass over the corpora: clean rows are streamed to disk, others are counted."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlkd.config.inputs import DataConfig
from mlkd.config.labelled import LabelledConfig
from mlkd.data.account import by_reason
from mlkd.data.cleaning import below, clean, form_hash, hash64, normal_form
from mlkd.data.labelled import read_labelled
from mlkd.data.readers import read
from mlkd.data.rows import UNFINISHED, Reject, Row
from mlkd.data.sniff import OtherFile
from mlkd.data.sources import count_rows
from mlkd.output.errors import UserError
from mlkd.output.progress import progress

ROW = np.dtype(
    [
        ("sentences", "<u8", 2),  # hashes of language and text, source and translation
        ("forms", "<u8", 2),  # hashes of the normal forms
        ("sizes", "<u4", 2),  # bytes
        ("group", "<u2"),
        ("domain", "<u2"),
        ("dev", "?"),
        ("value", "<f4"),  # of labelled text
    ]
)
_PACK = struct.Struct("<4Q2I2H?f").pack
_MOST_DOMAINS = (1 << 16) - 1
"""Largest number of a domain."""
_HOPELESS = 10_000
"""So many bad rows that are also most of the rows stop a corpus before its end."""


@dataclass
class CorpusPart:
    """One translation language of a corpus, or one split of a labelled one, and what became of it.

    Attributes:
        labelled: How a labelled corpus is read; None of a parallel one.
        split: ``train`` or ``dev`` of a labelled corpus.
    """

    corpus: str
    source_lang: str
    target_lang: str
    files: list[Path]
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    labelled: LabelledConfig | None = None
    split: str = ""

    @property
    def key(self) -> str:
        """Where the configuration has the corpus."""
        return f"data.{'corpora' if self.labelled is None else 'labelled'}.{self.corpus}"

    def read(self, config: DataConfig) -> Iterator[Row | Reject]:
        """Its rows."""
        if self.labelled is not None:
            return read_labelled(self.corpus, self.labelled, self.split, self.files[0])
        return read(self.corpus, config.corpora[self.corpus], self.target_lang, self.files)

    def expected(self, config: DataConfig) -> tuple[int | None, int | None]:
        """How many rows it has, where that is quick to find out, and how many are wanted."""
        if self.labelled is not None:
            return None, None
        corpus = config.corpora[self.corpus]
        return count_rows(corpus, self.files), corpus.max_pairs

    def bad(self) -> Counter[str]:
        """Rejected rows but for those that are normal in a catalogue."""
        return Counter({k: n for k, n in self.rejected.items() if k not in UNFINISHED})


class Collector:
    """Writes clean rows to ``spool.text`` and ``spool.rows``, bad ones to ``rejected.tsv``."""

    def __init__(
        self, config: DataConfig, excluded: tuple[set[str], set[str]], folder: Path, cache: Path
    ) -> None:
        """Open the files.

        Args:
            config: Cleaning and splits.
            excluded: Normal forms of the evaluation sentences that are left out of the training
                pairs, and of those that are left out of the held-out ones.
            folder: Where to write.
            cache: Where the rejected rows of a corpus that is too dirty are left for the user.
        """
        self._config, self._excluded, self._cache = config, excluded, cache
        self.domains: dict[str, int] = {}
        self._files = ExitStack()
        self._text = self._files.enter_context((folder / "spool.text").open("wb"))
        self._rows = self._files.enter_context((folder / "spool.rows").open("wb"))
        self._rejected_path = folder / "rejected.tsv"
        self._rejected = self._files.enter_context(self._rejected_path.open("wb"))
        self._rejected.write(b"file\tplace\treason\texcerpt\n")

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def read_corpus(self, sources: list[tuple[int, CorpusPart]]) -> None:
        """Read all languages of a corpus and stop if too many of its rows are bad."""
        tallies = [source for _, source in sources]
        start = self._rejected.tell()
        for group, source in sources:
            try:
                self._read_source(group, source, start)
            except OtherFile as error:
                if error.format is None or source.labelled is not None:
                    raise
                raise UserError(f"{error}, or give {source.key}.format={error.format}") from None
            if source.rows == 0:
                raise UserError(
                    f"{source.key}: no rows for {source.target_lang} in "
                    f"{', '.join(map(str, source.files[:1]))}"
                )
        self._check(tallies, self._config.max_rejected, start)

    def _read_source(self, group: int, source: CorpusPart, start: int) -> None:
        config, kept = self._config, 0
        salts = source.source_lang.encode(), source.target_lang.encode()
        total, limit = source.expected(config)
        bar = progress(
            f"{source.corpus} {source.source_lang}-{source.target_lang}",
            total=min(total, limit) if total is not None and limit else total,
            unit=" pairs",
        )
        for item in source.read(config):
            source.rows += 1
            bar.update()
            row = item if isinstance(item, Reject) else clean(item, config.max_chars)
            if isinstance(row, Reject):
                self._reject(row, source, start)
                continue
            kept += 1
            forms = normal_form(row.source), normal_form(row.target)
            first = form_hash(forms[0])
            dev = below(first, config.dev_fraction) if row.dev is None else row.dev
            excluded = self._excluded[dev]
            if forms[0] in excluded or forms[1] in excluded:
                source.dropped["evaluation sentence"] += 1
            elif not dev and not below(hash64(forms[0].encode(), b"fraction"), config.fraction):
                source.dropped["outside data.fraction"] += 1
            else:
                one, two = row.source.encode(), row.target.encode()
                domain = self.domains.setdefault(row.domain, len(self.domains))
                if domain > _MOST_DOMAINS:
                    raise UserError(
                        f"{source.key}: more than {_MOST_DOMAINS + 1:,} domains; a domain is a "
                        "label of many rows"
                    )
                self._text.write(one)
                self._text.write(two)
                self._rows.write(
                    _PACK(
                        *(hash64(one, salts[0]), hash64(two, salts[1])),
                        *(first, form_hash(forms[1])),
                        *(len(one), len(two), group, domain, dev, row.value),
                    )
                )
            if kept == limit:
                break
        bar.close()

    def _reject(self, row: Reject, source: CorpusPart, start: int) -> None:
        source.rejected[row.reason] += 1
        file, _, place = row.place.rpartition(":")
        raw = row.raw[:200]
        text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
        # repr escapes what would break the line or the encoding, and nothing else.
        cells = file, place, row.reason, repr(text)[1:-1]
        self._rejected.write(("\t".join(cells) + "\n").encode())
        if source.rejected.total() % _HOPELESS == 0:
            self._check([source], max(0.5, self._config.max_rejected), start)

    def _check(self, sources: list[CorpusPart], allowed: float, start: int) -> None:
        """Stop at too many bad rows, and leave them where the user can look at them."""
        bad = sum((source.bad() for source in sources), Counter[str]())
        rows = sum(source.rows - source.rejected.total() for source in sources) + bad.total()
        if bad.total() <= allowed * rows:
            return
        self._rejected.flush()
        name = sources[0].corpus
        place = self._cache / f"rejected-{re.sub(r'[^A-Za-z0-9_-]', '_', name)}.tsv"
        with self._rejected_path.open("rb") as file:
            head = file.readline()
            file.seek(start)
            place.write_bytes(head + file.read())
        raise UserError(
            f"{sources[0].key}: {bad.total() / rows:.1%} of {rows:,} rows are bad "
            f"({by_reason(self._config, bad)}); allowed is data.max_rejected="
            f"{self._config.max_rejected:.0%}; see {place}"
        )
