"""Memory of a process that does nothing but encode: ``python -m mlkd.metrics.memory <folder>``.

The process is a fresh one, since what a long-lived one once needed stays with it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mlkd.output.errors import UserError
from mlkd.storage.process import resident_mib

_ROOT = Path(__file__).resolve().parents[2]


def encoding_mib(folder: Path, sentences: Sequence[str], threads: int) -> dict[str, float] | None:
    """Encode in a process of its own.

    Args:
        folder: A sentence-transformers folder, or an exported ONNX folder.
        sentences: What it encodes.
        threads: CPU threads.

    Returns:
        ``libraries``, the resident memory (MiB) with the libraries loaded, and ``above``, how far
        the largest value lies above it; None where the system does not tell (it needs ``/proc``).

    Raises:
        UserError: The process failed.
    """
    if not Path("/proc/self/status").is_file():
        return None
    paths = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-B", "-m", "mlkd.metrics.memory", str(folder), str(threads)],
        input=json.dumps(list(sentences)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads)},
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise UserError(f"{folder}: the process that measures memory failed ({said})")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _main(folder: Path, threads: int) -> dict[str, float]:
    sentences = json.load(sys.stdin)
    if (folder / "encode.py").is_file():
        import numpy  # noqa: F401
        import onnxruntime  # noqa: F401
        import tokenizers  # noqa: F401

        libraries = resident_mib("VmRSS")
        sys.path.insert(0, str(folder))
        encode = importlib.import_module("encode").Encoder(folder, threads).encode
    else:
        from mlkd.encoders.folder import load_folder

        libraries = resident_mib("VmRSS")
        encode = load_folder(folder).encode
    encode(sentences, batch_size=32)
    return {"libraries": libraries, "above": resident_mib("VmHWM") - libraries}


if __name__ == "__main__":
    json.dump(_main(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout)
