"""Schemas of the encoders that are made: assistant and student, and how a student starts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from mlkd.config.inputs import EncoderConfig
from mlkd.config.languages import Language
from mlkd.config.section import Decides, Fraction, Positive, Section, Seed, Several


class VocabularyConfig(Section):
    """The multilingual vocabulary of an assistant that is built from the teacher."""

    size: Annotated[int, Field(ge=100)] = 8000
    """Pieces learned from the pairs (fewer if the text is small), besides accented letters."""
    keep_teacher: bool = True
    """Keep the teacher's own pieces (WordPiece teachers), so that English stays as it is, and
    learn the new ones from the translations; otherwise learn all from both sides."""
    rows: Literal["subwords", "aligned"] = "subwords"
    """How rows of new pieces start: as the mean of the teacher's pieces for the same characters,
    or as the mean of the English pieces they are translated with (IBM model 1)."""


class AssistantConfig(Section):
    """The multilingual assistant: a ready encoder, or the teacher with a new vocabulary."""

    encoder: EncoderConfig | None = None
    """Ready multilingual encoder; null = build it from the teacher."""
    vocabulary: VocabularyConfig | None = None
    """Only for an assistant that is built from the teacher."""
    train: Annotated[bool, Decides.CHAIN]
    """Whether recipes train it (always useful when it is built from the teacher)."""
    seed: Annotated[Seed, Decides.CHAIN]
    """Seed of that training: that of the chain, unless chains of several seeds share one
    assistant."""

    @model_validator(mode="before")
    @classmethod
    def _size_of_no_vocabulary(cls, values: Any) -> Any:
        """Leave out what experiments say of a vocabulary where a ready encoder has its own."""
        if not isinstance(values, dict) or values.get("encoder") is None:
            return values
        whole, given = VocabularyConfig.model_fields.keys(), values.get("vocabulary")
        partial = isinstance(given, dict) and given.keys() < whole
        return values | {"vocabulary": None} if partial else values

    @model_validator(mode="after")
    def _one_kind(self) -> AssistantConfig:
        if (self.encoder is None) == (self.vocabulary is None):
            raise ValueError("give exactly one of encoder and vocabulary")
        return self


class TrimConfig(Section):
    """Which pieces of the vocabulary stay (Ansell et al., 2023)."""

    languages: Annotated[Several[Language], Field(min_length=1)] | None = None
    """Languages whose pieces stay; null = all of the pairs."""
    min_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-6
    """Share of a language's tokens from which a piece stays."""


class StudentConfig(Section):
    """Size of the student (Ding et al., 2022, sections 3.2 and 3.3)."""

    version: ClassVar[int] = 1
    """Of how a student is made."""

    bottleneck: Positive | None
    """Width e of the factorised word embedding; null = full width."""
    codes: Positive | None = None
    """Codes of a byte that a row of the word table is stored as (product quantisation), a divisor
    of the width, in place of a bottleneck; null = none."""
    layers: Positive
    """Stored encoder layers K."""
    recurrence: Positive
    """How often the stack of stored layers is run, R; parameters do not depend on it."""
    intermediate: Positive | None = None
    """Neurons between the two matrices of a layer's feed-forward part; null = as the source."""
    cut_positions: bool = False
    """Leave out the position rows that no input reaches, those behind ``data.max_tokens``."""
    trim: TrimConfig | None = None
    """Leaves out what the training pairs do not use; null = the whole vocabulary of the source."""

    @model_validator(mode="after")
    def _one_table(self) -> StudentConfig:
        if self.bottleneck is not None and self.codes is not None:
            raise ValueError("give bottleneck or codes, not both; the other is null")
        return self


class InitConfig(Section):
    """How the student starts (Wibowo et al., 2024; methods of Ding et al., 2022)."""

    source: Annotated[str, Field(min_length=1)]
    """``scratch``, random; ``base`` or ``teacher``, the assistant before or after stage 1; or the
    folder of a run or an encoder, such as a larger student (Mirzadeh et al., 2020)."""
    layers: Literal["first", "stride", "last", "ends"]
    """Which layers of the source the stored layers copy."""
    embedding: Literal["copy", "svd", "kmeans", "random"]
    """Word table: copied (full width only), factorised by weighted SVD (bottleneck), coded by
    weighted k-means (codes), or random together with positions, types and LayerNorm (the paper's
    stage 2)."""
    frequency_power: Fraction = 0.5
    """Weight of a token in SVD and k-means: its frequency to this power. At 1 the function words
    take most of the table, at 0 the rarest word counts as much as the most frequent one."""

    @property
    def folder(self) -> str | None:
        """The source, if it is a folder."""
        return None if self.source in ("scratch", "base", "teacher") else self.source

    @model_validator(mode="after")
    def _scratch_is_random(self) -> InitConfig:
        if self.source == "scratch" and self.embedding != "random":
            raise ValueError(f"source=scratch needs embedding=random, not {self.embedding}")
        if self.source == "scratch" and self.layers != "first":
            raise ValueError(f"source=scratch copies nothing; layers={self.layers} would be first")
        usual = type(self).model_fields["frequency_power"].default
        if self.embedding not in ("svd", "kmeans") and self.frequency_power != usual:
            raise ValueError(
                f"frequency_power={self.frequency_power} is only read with embedding=svd, kmeans"
            )
        return self
