"""Schemas of single export formats; free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from mlkd.config.section import Folder, Positive, Section


class Q4Config(Section):
    """How ``onnx_q4`` stores a word table; its other matrices have 4 bits a number."""

    table: Literal["int4", "int8", "pq"] = "int4"
    """4 bits a number and a scale for each 32 of a row; a byte a number and a scale a row; or codes
    of a byte (product quantisation), which an unweighted k-means finds."""
    codes: Positive | None = None
    """Codes of a row, a divisor of its width, with ``table=pq``; null = the fewest of at
    most 4 numbers each."""

    @model_validator(mode="after")
    def _codes_are_read(self) -> Q4Config:
        if self.codes is not None and self.table != "pq":
            raise ValueError(f"codes={self.codes} is only read with table=pq")
        return self


class WebConfig(Section):
    """What a page that searches in a browser is made of."""

    runtime: Folder
    """Folder of Node packages (``node_modules``) with onnxruntime-web and
    @huggingface/tokenizers."""
    texts: Folder | None = None
    """Text file that is searched, a sentence a line; a ``.tsv`` has the language before it. Plain
    or packed (``.gz``, ``.bz2``, ``.xz``). null = sentences of the embedded demo corpus."""
    weights: Literal["int8", "q4"] = "int8"
    """Which graph the page runs: that of ``onnx_int8`` or of ``onnx_q4``."""
