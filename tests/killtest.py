"""``python tests/killtest.py``: kill a real chain again and again and compare what comes out.

With 20 kills it takes about ten minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mlkd.output.errors import UserError
from mlkd.runs.record import read_record
from mlkd.storage.files import file_sha256, replacing

_STAGES = ("assistant", "bottleneck", "recurrent", "contrastive")
_REPOSITORY = Path(__file__).parents[1]
_COMMAND = [
    "debug=tiny",
    "trainer.threads=1",
    "trainer.precision=fp32",
    "trainer.save_steps=5",
    "trainer.save_cost=1.0",
    *(f"stages.{stage}.max_steps=24" for stage in _STAGES),
]
"""What ``python -m mlkd.train`` is told."""
_POLL = 0.002
"""Seconds between looks at a chain."""


@dataclass(frozen=True)
class Moment:
    """When to kill: a while after something is printed or a file appears."""

    name: str
    printed: str | None = None
    """Regular expression."""
    file: str | None = None
    """Glob pattern in the output folder."""
    delay: float = 0.3
    """Longest while (seconds)."""

    def has_come(self, printed: str, output: Path, before: set[Path]) -> bool:
        """Whether the sign is in what was printed, or the file is there and was not before."""
        if self.printed is not None and re.search(self.printed, printed):
            return True
        return self.file is not None and any(p not in before for p in output.glob(self.file))


@dataclass(frozen=True)
class Kill:
    """One kill: what was aimed at, what the chain did last, which files it was writing."""

    chain: int
    moment: str
    last: str
    writing: str


def main(wanted: int, seed: int, path: Path) -> None:
    """Run an undisturbed chain and disturbed ones; write the table and compare.

    Args:
        wanted: Kills.
        seed: Decides how long after each sign the kill comes.
        path: Markdown file to write.

    Raises:
        UserError: A chain fails, or its results are others.
    """
    chance = random.Random(seed)
    command = [sys.executable, "-m", "mlkd.train", *_COMMAND]
    kills: list[Kill] = []
    differing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mlkd-killtest-") as scratch:
        print("undisturbed chain", flush=True)
        _finish(command, Path(scratch, "whole"))
        expected = _results(Path(scratch, "whole"))
        chain = 0
        while len(kills) < wanted:
            chain += 1
            output = Path(scratch, f"killed-{chain}")
            moments = _moments()
            if (left := wanted - len(kills)) < len(moments):
                moments = [moments[i] for i in sorted(chance.sample(range(len(moments)), left))]
            while moments and len(kills) < wanted:
                kill, moments = _kill(command, output, chain, moments, chance)
                if kill is not None:
                    kills.append(kill)
                    print(f"kill {len(kills)}: {kill.moment}; {kill.last}", flush=True)
            _finish(command, output)
            found = _results(output)
            differing += [f"chain {chain}: {n}" for n in expected if found.get(n) != expected[n]]
    text = _table(kills, chain, list(expected), differing)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    if differing:
        raise UserError(f"{len(differing)} results differ, the first is {differing[0]}; see {path}")
    print(f"table: {path}")


def _moments() -> list[Moment]:
    """Moments in the order in which a chain comes to them."""
    moments = [
        Moment("preparation of pairs", r"demo en-\w\w: +\d+"),
        Moment("vocabulary", "assistant: learn"),
        Moment("evaluation", r"evaluate: +\d+%"),
        Moment("tokenisation", r"tokenise: +\d+%"),
    ]
    targets = {
        "assistant": "teacher",
        "bottleneck": "assistant embeddings",
        "recurrent": "assistant",
        "contrastive": None,  # the teacher's vectors again
    }
    for stage, encoder in targets.items():
        if encoder:
            moments.append(
                Moment(f"targets of {stage}", rf"vectors of {encoder}: +\d+%", delay=0.1)
            )
        moments.append(Moment(f"training of {stage}", rf"stage {stage}: +\d+%", delay=2.0))
        saving = f"runs/{stage}-*/.last.ckpt.*.part"
        moments.append(Moment(f"saving of {stage}", file=saving, delay=0.03))
        handing = f"runs/{stage}-*/.student.*.part"
        moments.append(Moment(f"hand-over of {stage}", file=handing, delay=0.03))
    return moments


def _kill(
    command: list[str], output: Path, chain: int, moments: list[Moment], chance: random.Random
) -> tuple[Kill | None, list[Moment]]:
    """Start or go on with a chain and kill it at the next moment, or at a later one if that passes.

    Returns:
        The kill, None if the chain has ended before; and the moments that are still to come.
    """
    before = set(output.rglob(".*.part"))  # left behind by the kill before
    process = _start(command, output)
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    printed = ""
    moment = None
    while process.poll() is None and moment is None:
        time.sleep(_POLL)
        printed += _read(process)
        moment = next((m for m in moments if m.has_come(printed, output, before)), None)
    if moment is not None:
        time.sleep(chance.uniform(0, moment.delay))
    process.send_signal(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    printed += _read(process)
    process.stdout.close()
    if moment is None or not killed:
        return None, []
    lines = [line.strip() for line in re.split(r"[\r\n]", printed) if line.strip()]
    parts = {re.sub(r"^\.|\.[^.]*\.part$", "", p.name) for p in output.rglob(".*.part")}
    last = _short(lines[-1] if lines else "")
    kill = Kill(chain, moment.name, last, ", ".join(sorted(parts)))
    return kill, moments[moments.index(moment) + 1 :]


def _finish(command: list[str], output: Path) -> None:
    """Run a chain to its end.

    Raises:
        UserError: It fails.
    """
    process = _start(command, output)
    printed, _ = process.communicate()
    if process.returncode:
        last = printed.decode(errors="replace").strip().splitlines()[-1:]
        raise UserError(f"{output}: the chain ended with status {process.returncode}: {last}")


def _start(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(_REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [*command, f"output_dir={output}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": path},
    )


def _read(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return (process.stdout.read() or b"").decode(errors="replace")


def _results(output: Path) -> dict[str, str]:
    """Hashes of what must not depend on kills: weights, curves, selected steps."""
    found = {}
    for stage in _STAGES:
        (folder,) = (output / "runs").glob(f"{stage}-*")
        found[f"{stage} weights"] = file_sha256(folder / "student" / "model.safetensors")
        found[f"{stage} curves"] = file_sha256(folder / "curves" / "metrics.csv")
        training = read_record(folder)["training"]
        found[f"{stage} dev curve"] = json.dumps([training["curve"], training["best"]])
    return found


def _short(line: str) -> str:
    """What a progress bar or message says, without the bar and the paths."""
    line = re.sub(r"%\|.*?\|", "%", line)
    return re.sub(r"\S*/\S*/\S*/(\S+)", r"\1", line).split("[")[0].strip()[:60]


def _table(kills: list[Kill], chains: int, results: list[str], differing: list[str]) -> str:
    head = ["kill", "chain", "aimed at", "last line of the chain", "files in the making"]
    rows = [[str(i), str(k.chain), k.moment, k.last, k.writing] for i, k in enumerate(kills, 1)]
    lines = [head, [":--"] * len(head), *rows]
    table = "".join("| " + " | ".join(c.replace("|", "/") for c in row) + " |\n" for row in lines)
    same = chains * len(results) - len(differing)
    return (
        f"{len(kills)} kills (SIGKILL) of {chains} chains `python -m mlkd.train "
        f"{' '.join(_COMMAND)}`; {same} of {chains * len(results)} results (weights, curves, dev "
        f"curves of {len(_STAGES)} links) are identical to those of an undisturbed chain.\n\n"
        f"{table}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill a real chain and compare its results.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("outputs", "killtest.md"))
    given = parser.parse_args()
    main(given.kills, given.seed, given.output)
