"""Encoders beside each other in one process: latency, throughput, memory and size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from mlkd.config.commands import EvaluateConfig
from mlkd.config.paths import user_path
from mlkd.deploy.exported import open_onnx
from mlkd.deploy.formats import BATCH, encoder
from mlkd.deploy.source import assistant_of, run_of
from mlkd.encoders.folder import load_folder
from mlkd.metrics.memory import encoding_mib
from mlkd.metrics.scoring import Encode
from mlkd.metrics.size import folder_mib
from mlkd.metrics.speed import race
from mlkd.output.errors import UserError
from mlkd.output.extras import need

THREADS = (1, 2)
_TIMED = 320
"""Sentences that ``latency=true`` times: ten batches."""


def compare_speed(folders: Mapping[str, Path], sentences: Sequence[str]) -> dict[str, Any]:
    """Let encoders take turns on the same sentences, with one thread and with two.

    Exported folders with an ``encode.py`` go through it, others through
    ``SentenceTransformer.encode``.

    Args:
        folders: Encoders by name.
        sentences: What they encode.

    Returns:
        By name ``mib`` (of the folder), ``memory_mib`` (see :func:`encoding_mib`) and by number of
        threads what :func:`race` measured.
    """
    contestants = {name: _contestant(folder) for name, folder in folders.items()}
    result: dict[str, dict[str, Any]] = {}
    for name, folder in folders.items():
        memory = encoding_mib(folder, sentences, THREADS[-1])
        result[name] = {"mib": folder_mib(folder), "memory_mib": memory}
    before = torch.get_num_threads()
    try:
        for threads in THREADS:
            torch.set_num_threads(threads)
            encoders = {name: contestant(threads) for name, contestant in contestants.items()}
            for name, measured in race(encoders, sentences, BATCH).items():
                result[name][f"threads_{threads}"] = measured
    finally:
        torch.set_num_threads(before)
    return result


def is_onnx(folder: Path) -> bool:
    """Whether a folder is an exported encoder that runs in ONNX Runtime."""
    return (folder / "encode.py").is_file()


def _contestant(folder: Path) -> Callable[[int], Encode]:
    """Gives ``encode`` for a number of threads."""
    if is_onnx(folder):
        return lambda threads: open_onnx(folder, threads)
    encode = encoder(load_folder(folder))
    return lambda threads: encode  # torch has one number of threads for the whole process


def speed_table(measured: Mapping[str, Mapping[str, Any]]) -> Table:
    """A line an encoder."""
    heads = [f"{what}, {n} thr." for n in THREADS for what in ("p50 ms", "p95 ms", "sent/s")]
    table = Table()
    table.add_column("encoder", no_wrap=True)
    for head in ("MiB", "memory MiB", *heads):
        table.add_column(head, justify="right")
    for name, numbers in measured.items():
        cells = [f"{numbers['mib']:.1f}"]
        cells.append(f"{numbers['memory_mib']['above']:.0f}" if numbers["memory_mib"] else "-")
        for threads in THREADS:
            timed = numbers[f"threads_{threads}"]
            cells += [f"{timed['latency_ms'][p]:.2f}" for p in ("p50", "p95")]
            cells.append(f"{timed['sentences_per_s']:.0f}")
        table.add_row(name, *cells)
    return table


def racers(config: EvaluateConfig, student: Path, teacher: Path) -> dict[str, Path]:
    """Teacher, assistant, student and whatever else is to be timed, by name.

    Raises:
        UserError: ``config.compare`` names no encoder, or two of one name.
    """
    run = run_of(student)
    assistant = assistant_of(run) if run else None
    folders = {"teacher": teacher} | ({"assistant": assistant} if assistant else {})
    folders["student"] = student
    for given in config.compare:
        folder = user_path(given)
        if not (is_onnx(folder) or (folder / "modules.json").is_file()):
            raise UserError(
                f"compare={given}: no encoder; give a sentence-transformers folder or an exported "
                "onnx folder"
            )
        if is_onnx(folder):
            need(["onnxruntime"], "export", f"compare={given}")
        name = "/".join(folder.absolute().parts[-2:])
        if folders.setdefault(name, folder) != folder:
            raise UserError(f"compare={given}: another folder is called {name} as well; rename one")
    return folders


def race_of(folders: dict[str, Path], texts: list[str]) -> dict[str, Any]:
    """Time encoders beside each other."""
    distinct = sorted(set(texts))
    spread = range(0, len(distinct), -(-len(distinct) // _TIMED))
    return compare_speed(folders, [distinct[i] for i in spread])
