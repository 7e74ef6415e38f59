"""A linear head on sentence vectors: its folder, opened without running foreign code."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mlkd.output.errors import UserError
from mlkd.storage.files import reason_of, write_json

log = logging.getLogger(__name__)

_WEIGHTS, _LABELS = "head.safetensors", "head.json"


@dataclass(frozen=True)
class Head:
    """Logits of the directions of sentence vectors: exports give unit vectors.

    Attributes:
        weight: ``(C, d)``, float32.
        bias: ``(C,)``, float32.
        labels: The C labels, in the order of the logits.
        domains: Heads for the vectors of some domains, with the same labels.
    """

    weight: Tensor
    bias: Tensor
    labels: tuple[str, ...]
    domains: Mapping[str, Head] = field(default_factory=dict)

    def of(self, domain: str | None) -> Head:
        """The head of a domain; this one where it has none of its own."""
        if domain is None or not self.domains:
            return self
        if domain not in self.domains:
            known = ", ".join(self.domains)
            log.warning("domain=%s: no head of its own, those are of: %s", domain, known)
        return self.domains.get(domain, self)

    def named(self, vectors: NDArray[np.floating]) -> list[str]:
        """The most likely label of each vector ``(n, d)``."""
        chosen = self.logits(torch.from_numpy(np.nan_to_num(vectors))).argmax(dim=1)
        return [self.labels[index] for index in chosen.tolist()]

    def logits(self, vectors: Tensor) -> Tensor:
        """Logits ``(n, C)`` of vectors ``(n, d)`` of any length, on their device."""
        weight, bias = self.weight.to(vectors.device), self.bias.to(vectors.device)
        return F.linear(F.normalize(vectors.float()), weight, bias)


def save_head(
    weight: Tensor, bias: Tensor, labels: Sequence[str], folder: Path, domains: Sequence[str] = ()
) -> None:
    """Write a head into a folder: its weights, and its labels in order.

    Args:
        weight: ``(C, d)``; with domains ``(D, C, d)``, and the head of any other text is the mean.
        bias: ``(C,)``, or ``(D, C)``.
        labels: The C labels.
        folder: Where to write.
        domains: Names of D domains with a head each.
    """
    weights, words = {"weight": weight, "bias": bias}, {"labels": list(labels)}
    if domains:
        weights |= {f"domains.{name}": value for name, value in weights.items()}
        weights |= {"weight": weight.mean(0), "bias": bias.mean(0)}
        words["domains"] = list(domains)
    weights = {name: value.detach().float().cpu().contiguous() for name, value in weights.items()}
    save_file(weights, folder / _WEIGHTS)
    write_json(folder / _LABELS, words)


def load_head(folder: Path, width: int | None = None) -> Head:
    """Open the folder of a head.

    Args:
        folder: As :func:`save_head` wrote it.
        width: Of the vectors that it is to read; None = any.

    Raises:
        UserError: It is none, or it reads vectors of another width.
    """
    try:
        words = json.loads((folder / _LABELS).read_text(encoding="utf-8"))
        labels, domains = words["labels"], words.get("domains", [])
        tensors = load_file(folder / _WEIGHTS)
        weight, bias = tensors["weight"].float(), tensors["bias"].float()
        known = all(
            isinstance(names, list) and all(isinstance(name, str) for name in names)
            for names in (labels, domains)
        )
        if not known or weight.ndim != 2 or not len(labels) == len(weight) == len(bias):
            raise ValueError("labels and weights do not fit each other")
        for names in (labels, domains):
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{twice[0]!r} is named twice")
        parts = [tensors[f"domains.{name}"].float() for name in ("weight", "bias") if domains]
        if [tuple(part.shape) for part in parts] != [
            (len(domains), *whole.shape) for whole in (weight, bias) if domains
        ]:
            raise ValueError("domains and weights do not fit each other")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise UserError(f"{folder}: no head of a classification ({reason_of(error)})") from None
    if width not in (None, weight.shape[1]):
        raise UserError(
            f"{folder}: a head for vectors of width {weight.shape[1]}, not {width}; it belongs to "
            "another encoder"
        )
    rows = zip(domains, *parts, strict=True) if domains else ()
    own = {name: Head(one, other, tuple(labels)) for name, one, other in rows}
    return Head(weight, bias, tuple(labels), own)
