"""What every format gets: the corpus, the language that is asked for, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path

from mlkd.config.inputs import CorpusConfig
from mlkd.config.languages import spellings
from mlkd.config.paths import user_path
from mlkd.data.rows import lines
from mlkd.output.errors import UserError

_SOME = 100
"""Lines that say whether a file is a table."""


@dataclass(frozen=True)
class Wanted:
    """One translation language of a corpus.

    Attributes:
        name: Key of the corpus in ``data.corpora``.
        corpus: Its configuration.
        target: Translation language, one of ``corpus.targets``.
        section: Where the configuration has the corpus.
    """

    name: str
    corpus: CorpusConfig
    target: str
    section: str = "data.corpora"

    @property
    def source(self) -> str:
        """Language of the source side."""
        return self.corpus.source_of(self.target)

    @property
    def one_target(self) -> bool:
        """Whether all that is read from the path is for this one language."""
        places = f"{self.corpus.path}{self.corpus.target_path}"
        return len(set(self.corpus.targets)) == 1 or "{target}" in places or "{pair}" in places

    def refuse(self, what: str, key: str = "") -> UserError:
        """An error about a key of the corpus, for the caller to raise."""
        return UserError(f"{self.section}.{self.name}{key}: {what}")

    def columns(self, files: list[Path]) -> list[str | int]:
        """The columns that are read: those of the configuration, or the first ones."""
        corpus = self.corpus
        if corpus.columns is not None:
            return [
                corpus.fill(c, self.target) if isinstance(c, str) else c for c in corpus.columns
            ]
        if corpus.format == "text":
            return [0]
        if corpus.format == "aligned":
            start = [line for _, line in islice(lines(files[0]), _SOME) if isinstance(line, str)]
            if 2 * sum("\t" in line for line in start) < len(start):  # plain text, as Moses has it
                return [0]
        return [0, 1]

    def with_domain(self, columns: list[str | int]) -> list[str | int]:
        """Columns, and that of the domain if there is one."""
        column = self.corpus.domain_column
        return columns if column is None else [*columns, column]

    def no_domain(self) -> UserError:
        """For a file whose rows have no value where their domain should stand."""
        return self.refuse(f"no row has one in {self.corpus.domain_column!r}", ".domain_column")

    def two_columns(self, files: list[Path]) -> list[str | int]:
        """The columns of the source and the translation.

        Raises:
            UserError: There are not two.
        """
        columns = self.columns(files)
        if len(columns) != 2:
            raise self.refuse(f"{columns}; give two, source and translation", ".columns")
        return columns

    def two_names(self, files: list[Path]) -> list[str]:
        """As :meth:`two_columns`, and that of the domain; in a format whose columns have names."""
        return [*self.names(self.two_columns(files)), *map(str, self.with_domain([]))]

    def names(self, columns: list[str | int]) -> list[str]:
        """Columns of a format whose columns have names only.

        Raises:
            UserError: One is a position.
        """
        names = [column for column in columns if isinstance(column, str)]
        if len(names) != len(columns):
            how_many = {2: "two", 3: "three"}[len(columns)]
            raise self.refuse(
                f"{columns}; format {self.corpus.format} needs {how_many} names", ".columns"
            )
        return names

    def place(self, template: str, root: str | None) -> Path:
        """Where a path with placeholders leads."""
        return Path(root or "") / user_path(self.corpus.fill(template, self.target))

    def file(self, template: str, root: str | None) -> Path:
        """The file that a path with placeholders means.

        Raises:
            UserError: There is none; the line names the spelling of a language that finds one.
        """
        path = self.place(template, root)
        if not path.is_file():
            if codes := self._other_codes(template, root):
                shown = ",".join(f"{code}:{written}" for code, written in codes.items())
                key = f"data.corpora.{self.name}.codes"
                raise UserError(
                    f"{key}: no {path}; '+{key}={{{shown}}}' finds the one that is there"
                )
            self.some([], str(path))
        return path

    def some(self, files: list[Path], wanted: str) -> list[Path]:
        """The files.

        Raises:
            UserError: There are none.
        """
        if not files:
            raise UserError(
                f"data.corpora.{self.name}: no {wanted}; set data.root or "
                f"data.corpora.{self.name}.path"
            )
        return files

    def _other_codes(self, template: str, root: str | None) -> dict[str, str]:
        """The setting ``codes`` that finds a file which writes its languages otherwise, if any."""
        corpus = self.corpus
        for here, there in product(spellings(corpus.source), spellings(self.target)):
            codes = corpus.codes | {corpus.source: here, self.target: there}
            other = Wanted(self.name, corpus.model_copy(update={"codes": codes}), self.target)
            if other.place(template, root).is_file():
                return {code: written for code, written in codes.items() if code != written}
        return {}
