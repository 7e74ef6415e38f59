"""A process of the case ``busy``: ``python -m mlkd.bench.worker`` answers lines with rates.

libgomp reads how its threads wait when it is loaded, so that each way needs a process of its own.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from mlkd.encoders.frozen import FrozenEncoder

_MOST_SENTENCES = 64
"""Sentences of a training step."""


def _main() -> None:
    """Answer each line with sentences per second; the first one says of what."""
    order = json.loads(sys.stdin.readline())
    torch.set_num_threads(order["threads"])
    encoder = FrozenEncoder.open(
        Path(order["folder"]), max_tokens=order["max_tokens"], accelerator="cpu"
    )
    texts = order["texts"]
    some = texts[:_MOST_SENTENCES]
    batch = encoder.model.tokenizer(
        some, truncation=True, max_length=order["max_tokens"], padding=True, return_tensors="pt"
    )

    def turn() -> dict[str, float]:
        start = time.perf_counter()
        encoder.encode(texts)
        middle = time.perf_counter()
        encoder.model.requires_grad_(True)
        encoder.model(dict(batch))["sentence_embedding"].square().mean().backward()
        encoder.model.requires_grad_(False)
        end = time.perf_counter()
        return {"targets": len(texts) / (middle - start), "training": len(some) / (end - middle)}

    while True:
        sys.stdout.write(json.dumps(turn()) + "\n")
        sys.stdout.flush()
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    _main()
