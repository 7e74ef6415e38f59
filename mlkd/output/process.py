"""What a command settles for good in its process, which runs nothing else."""

from __future__ import annotations

import logging
import os

from mlkd.output.secrets import guard_output

WAITING = {"GOMP_SPINCOUNT": "10000"}
"""How OpenMP's threads wait for each other: awake for a moment, then asleep. By default they spin
thirty times as long, which takes time from other processes, and from the threads they wait for."""
WAITS = {*WAITING, "OMP_WAIT_POLICY"}
"""Who sets one of these has decided."""
_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "error",
    # oneDNN keeps a kernel with its buffers for each shape of a product, a thousand by default.
    # Nearly every batch has another number of tokens, so that training in bf16 would grow by some
    # GiB; with 64 it is as fast.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
}
"""Read by libraries when they are first used; what the user has set stays."""


def own_process() -> None:
    """Set what libraries read when they start, and keep secrets out of whatever is printed."""
    waiting = {} if os.environ.keys() & WAITS else WAITING
    for name, value in (_ENVIRONMENT | waiting).items():
        os.environ.setdefault(name, value)
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    guard_output()
