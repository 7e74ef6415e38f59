"""Shapes of a student: which there are, and how near the start of each is to its source.

A start is told by the mean cosine of its sentence vectors with the source's. Nothing is trained,
and no evaluation set is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch import Tensor

from mlkd.config.student import InitConfig, StudentConfig, TrimConfig
from mlkd.data.tokens import TokenStore
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.encoders.forward import encode
from mlkd.student.initialise import build_student
from mlkd.student.narrow import narrowed

_SENTENCES = 512
_BATCH = 64


@dataclass(frozen=True)
class WordTable:
    """A kind of word table: narrow or coded."""

    bottleneck: int | None = None
    codes: int | None = None

    @property
    def start(self) -> Literal["svd", "kmeans"]:
        """How it starts."""
        return "svd" if self.codes is None else "kmeans"


def tables(width: int) -> list[WordTable]:
    """The word tables that are compared, for token vectors of some width, small ones first.

    For 384 they are bottlenecks of 64 and 128, and 32 to 96 codes.
    """
    narrow = [WordTable(bottleneck=width // part) for part in (6, 3)]
    return narrow + [WordTable(codes=width // part) for part in (12, 8, 6, 4) if width % part == 0]


def neurons(most: int) -> list[int]:
    """Neurons between the matrices of a layer that are compared: quarters of all."""
    return [most * part // 4 for part in (1, 2, 3, 4)]


class Starts:
    """Students that start from one source, without doing anything twice.

    Attributes:
        depth: Layers of the source,
        width: width of its token vectors,
        neurons: and neurons between the matrices of its layers.
        compared: Sentences on which starts are compared, by length.
    """

    def __init__(
        self,
        source: SentenceTransformer,
        tokens: TokenStore,
        held_out: np.ndarray,
        init: InitConfig,
        max_tokens: int,
        seed: int,
    ) -> None:
        """Encode the sentences that starts are compared on.

        Args:
            source: Trimmed already; left as it is.
            tokens: The sentences of the pairs, cut by its tokenizer.
            held_out: Those that no link trains on ``(n,)``; some of them are compared.
            init: Which layers are copied, and the weight of frequent pieces.
            max_tokens: Longer inputs are cut.
            seed: Of the codes.
        """
        self._source, self._tokens, self._init = source, tokens, init
        self._max_tokens, self._seed = max_tokens, seed
        config = backbone_of(source).config
        self.depth = len(layers(backbone_of(source)))
        self.width, self.neurons = int(config.hidden_size), int(config.intermediate_size)
        self._frequency = torch.from_numpy(tokens.frequency(config.vocab_size))
        places = np.linspace(0, len(held_out) - 1, min(_SENTENCES, len(held_out))).astype(int)
        chosen = held_out[np.unique(places)]
        lengths = tokens.offsets[chosen + 1] - tokens.offsets[chosen]
        self.compared = chosen[np.argsort(lengths, kind="stable")]
        self._wanted = self._vectors(source)
        self._narrow: dict[int, SentenceTransformer] = {self.neurons: source}
        self._words: dict[WordTable, dict[str, Tensor]] = {}

    def size(self, table: WordTable, number: int, width: int) -> StudentConfig:
        """A student with ``number`` layers of ``width`` neurons, trimmed."""
        return StudentConfig(
            bottleneck=table.bottleneck,
            codes=table.codes,
            layers=number,
            recurrence=1,
            intermediate=None if width == self.neurons else width,
            cut_positions=True,
            trim=TrimConfig(),
        )

    def blank(self, table: WordTable, number: int, width: int) -> SentenceTransformer:
        """A student of a shape with a random word table, for its size."""
        if width not in self._narrow:
            self._narrow[width] = narrowed(self._source, self._tokens, width)
        return self._built(table, number, width, "random")

    def student(self, table: WordTable, number: int, width: int) -> SentenceTransformer:
        """The student of a shape as it starts."""
        model = self.blank(table, number, width)
        embeddings = backbone_of(model).embeddings
        if table not in self._words:
            first = self._built(table, 1, width, table.start)
            self._words[table] = backbone_of(first).embeddings.state_dict()
        embeddings.load_state_dict(self._words[table])
        return model

    def _built(self, table: WordTable, number: int, width: int, start: str) -> SentenceTransformer:
        init = self._init.model_copy(update={"embedding": start})
        size, source = self.size(table, number, width), self._narrow[width]
        return build_student(source, size, init, self._frequency, self._max_tokens, self._seed)

    def cosine(self, model: SentenceTransformer) -> float:
        """Mean cosine of its sentence vectors with the source's."""
        return float(F.cosine_similarity(self._vectors(model), self._wanted).mean())

    @torch.no_grad()
    def _vectors(self, model: SentenceTransformer) -> Tensor:
        """Of the sentences that are compared ``(n, d)``."""
        return torch.cat([encode(model, *batch).sentence for batch in self._batches()])

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.compared), _BATCH):
            ids, mask = self._tokens.padded(self.compared[start : start + _BATCH])
            yield torch.from_numpy(ids), torch.from_numpy(mask)
