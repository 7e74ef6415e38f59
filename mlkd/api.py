"""The Python door. The commands read their words, call these functions, and print.

What one of them refuses it says in a line, as :class:`UserError`. The process that calls is given
back as it was, after an exception and an interruption too: loggers, environment, signal handlers,
random numbers, threads, kernels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlkd.output.errors import UserError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from mlkd.config.schema import TrainConfig

__all__ = ["UserError", "configure", "load"]


def load(folder: Path | str) -> SentenceTransformer:
    """Open a student, or any sentence-transformers folder, on the CPU and in eval mode.

    Only safetensors weights and the module classes of sentence-transformers and mlkd are loaded,
    and nothing is looked up on a hub. This needs torch, transformers and sentence-transformers
    besides mlkd, no other of its packages.

    Args:
        folder: A student, the folder of a finished run, or an exported folder.

    Raises:
        UserError: It is no sentence encoder, or names foreign module classes.
    """
    from mlkd.encoders.folder import load_folder

    place = Path(folder).expanduser()
    return load_folder(place / "student" if (place / "run.json").is_file() else place)


def configure(*overrides: str) -> TrainConfig:
    """The configuration of ``python -m mlkd.train``, validated.

    Args:
        overrides: As on the command line: ``configure("experiment=headline", "seed=1")``.

    Raises:
        UserError: There is no such option or key, a value is out of range, or a combination
            impossible.
    """
    from mlkd.config.compose import configured
    from mlkd.config.schema import TrainConfig

    return configured("train", TrainConfig, overrides)
