"""``python notebooks/record.py <table> ... data.root=<corpora>``: the records of tables of results.

Runs the table's commands, which reuse what is finished and go on with what is not, and writes the
numbers of their run records to ``results/<table>.csv``. Settings with ``=`` are added to each
command: ``output_dir=...``, or ``hydra/launcher=slurm``.
"""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"

_LOCAL = {"error", "log", "code", "folder", "command"}
"""Columns of a report that are left out: of the machine, its checkout and what went wrong there."""

_TWO = "English, German"
_SIX = "English, German, Spanish, French, Italian, Dutch"
_FEW = (
    "stages.task.fraction=0.02 stages.task.epochs=15 "
    "stages.domains.fraction=0.02 stages.domains.epochs=25"
)
_EVEN = "stages.domains.graph=null"
_NARROW = (
    "student.layers=6 student.bottleneck=64 student.intermediate=384 student.trim={min_share:1e-6}"
)
_TWO_PAIRS = (
    "eval.sets.stsb_dev.languages=[en,de,fr] eval.sets.stsb_test.languages=[en,de,fr] "
    "eval.sets.multi30k_dev.languages=[de,fr] eval.sets.multi30k_test.languages=[de,fr] "
    "eval.sets.tatoeba_test.languages=[de,fr]"
)


@dataclass(frozen=True)
class Table:
    """What a table is of."""

    languages: str
    """Of the training pairs: Multi30k, Tatoeba and the train sentences of STS-B multi-MT."""
    commands: tuple[str, ...]
    """The words that follow the module."""
    module: str = "mlkd.train"
    """What runs: sweeps of ``mlkd.train``, or ``mlkd.baselines``."""
    assistant: str = ""
    """The words of a chain whose last student the commands take as their ready assistant."""
    besides: tuple[str, ...] = ()
    """Other files of the report than ``table.csv``: ``references`` or ``curves``."""


TABLES = {
    "headline": Table(_SIX, ("-m experiment=headline seed=0,1,2",), besides=("references",)),
    "headline_narrow": Table(
        _SIX,
        ("-m experiment=headline student=minilm_narrow student.trim=null seed=0,1,2",),
    ),
    "headline_least": Table(
        _SIX,
        (
            "-m experiment=headline student.layers=6 student.bottleneck=64 "
            "student.intermediate=384 student.trim={min_share:1e-6} seed=0,1,2",
        ),
    ),
    "baselines": Table(
        _SIX,
        tuple(
            f"experiment=headline eval.precision=fp32 eval.bootstrap=0 seed={seed}"
            for seed in range(3)
        ),
        module="mlkd.baselines",
    ),
    "five_mib": Table(
        _SIX,
        tuple(
            "experiment=headline_mse student=minilm_coded init=codes eval.precision=fp32 "
            f"eval.bootstrap=0 seed={seed}"
            for seed in range(3)
        ),
        module="mlkd.baselines",
    ),
    "ablations": Table(_TWO, ("-m sweep=ablation experiment=ablations",)),
    "sizes": Table(
        _SIX,
        (
            "-m sweep=bottleneck_recurrence experiment=sizes student.layers=2 "
            "student.recurrence=1 seed=0,1,2",
            "-m sweep=bottleneck_recurrence experiment=sizes student.bottleneck=128 "
            "student.layers=2 student.recurrence=2 seed=0,1,2",
            "-m sweep=bottleneck_recurrence experiment=sizes student.bottleneck=64,128 "
            "student.layers=4 student.recurrence=1 seed=0,1,2",
        ),
    ),
    "frequency": Table(
        _SIX,
        (
            "-m experiment=sizes student.layers=4 student.bottleneck=128 "
            "init.frequency_power=0.0,0.5,1.0 seed=0,1,2",
        ),
    ),
    "equal_size": Table(
        _SIX,
        (
            "-m experiment=sizes student.layers=4 student.bottleneck=64 seed=0,1,2",
            "-m experiment=sizes student.layers=5 student.bottleneck=128 "
            "student.intermediate=768 student.trim={min_share:1e-6} seed=0,1,2",
            "-m experiment=sizes student.layers=4 student.bottleneck=128 seed=0,1,2",
            "-m experiment=sizes student.layers=6 student.bottleneck=128 "
            "student.intermediate=768 seed=0,1,2",
        ),
    ),
    "starts": Table(
        _SIX,
        (
            "-m experiment=starts student.bottleneck=64 seed=0,1,2",
            "-m experiment=starts student.bottleneck=null student.codes=48 "
            "init.embedding=kmeans seed=0,1,2",
        ),
    ),
    "hrkd_fewshot": Table(
        "English",
        (
            "-m experiment=few_domains seed=0,1,2",
            "-m experiment=few_domains stages.domains.graph=null seed=0,1,2",
            f"-m experiment=few_domains {_FEW} seed=0,1,2",
            f"-m experiment=few_domains {_FEW} stages.domains.graph=null seed=0,1,2",
        ),
    ),
    "hrkd_domains": Table(
        "English",
        (
            "-m experiment=all_domains seed=0,1,2",
            "-m experiment=all_domains stages.domains.graph=null seed=0,1,2",
            "-m experiment=all_domains stages.domains.graph=null "
            "stages.domains.labelled=[books],[dvd],[electronics],[kitchen] seed=0,1,2",
            "-m experiment=all_domains stages.domains.graph=null "
            "stages.domains.loss.hidden=null stages.domains.loss.attention=null seed=0,1,2",
        ),
    ),
    "hrkd_graph": Table(
        "English",
        (
            "-m experiment=few_domains seed=0,1,2",
            "-m experiment=few_domains stages.domains.graph.update=frozen seed=0,1,2",
            "-m experiment=few_domains stages.domains.graph.update=alternate "
            "stages.domains.epochs=10 seed=0,1,2",
            "-m experiment=few_domains stages.domains.graph.aggregate=mean,none seed=0,1,2",
            "-m experiment=few_domains stages.domains.graph.self_attention=false seed=0,1,2",
        ),
    ),
    "layer_signals": Table(
        _SIX,
        (
            "-m experiment=layer_signals seed=0,1,2",
            "-m experiment=layer_signals stages.layers.enabled=false stages.mse.max_steps=600 "
            "seed=0,1,2",
        ),
    ),
    "bistil_pair": Table(
        _SIX,
        (
            f"-m experiment=one_pair data.languages=[de] {_TWO_PAIRS} seed=0,1,2",
            "-m experiment=one_pair data.languages=[de,es,fr,it,nl] student.layers=5 "
            f"student.intermediate=1024 {_TWO_PAIRS} seed=0,1,2",
        ),
        assistant="experiment=headline_mse stage=assistant",
        besides=("references",),
    ),
    "bistil_sparse": Table(
        _SIX,
        (
            "-m experiment=sparse_similarity stage=layers,task,dense seed=0,1,2",
            "-m experiment=sparse_similarity stages.sparse.density=0.01,0.04,0.08,0.16 seed=0,1,2",
        ),
        assistant="experiment=headline_mse stage=assistant stages.assistant.max_steps=2000",
        besides=("references",),
    ),
    "bistil_sentiment": Table(
        _SIX,
        (
            "-m experiment=sparse_sentiment stage=task,dense seed=0,1,2",
            "-m experiment=sparse_sentiment stages.sparse.density=0.04,0.08 seed=0,1,2",
        ),
        assistant="experiment=headline_mse stage=assistant stages.assistant.max_steps=2000",
    ),
    "hrkd_similarity": Table(
        _SIX,
        tuple(
            f"-m experiment=similarity_domains stages.domains.grouping.by=language,domain{words} "
            "seed=0,1,2"
            for words in ("", f" {_EVEN}", f" {_NARROW}", f" {_NARROW} {_EVEN}")
        ),
        assistant="experiment=headline_mse stage=assistant stages.assistant.max_steps=2000",
        besides=("references",),
    ),
    "initialisation": Table(
        _TWO,
        (
            "-m sweep=init experiment=privileged_grid init=base,teacher init.layers=ends "
            "init.frequency_power=1.0",
            "-m sweep=init experiment=privileged_grid init=scratch init.layers=first",
        ),
        besides=("curves",),
    ),
}


def record(name: str, settings: list[str]) -> None:
    """Run what a table is of and write its files."""
    table = TABLES[name]
    alone = [word for word in settings if not word.startswith("hydra/")]  # those of sweeps
    if table.assistant:
        ready = _run(["mlkd.train", *table.assistant.split(), *alone])
        settings, alone = (
            [*words, f"assistant.encoder.path={ready}"] for words in (settings, alone)
        )
    with tempfile.TemporaryDirectory() as scratch:
        if table.module == "mlkd.baselines":
            for number, line in enumerate(table.commands):
                output = f"output={scratch}/table-{number}.json"
                _run([table.module, *line.split(), output, *alone])
        else:
            trained = [_run([table.module, *line.split(), *settings]) for line in table.commands]
            _run(["mlkd.report", *trained, f"output={scratch}"])
        for kind in ("table", *table.besides):
            path = RESULTS / f"{name}{'' if kind == 'table' else f'_{kind}'}.csv"
            join(sorted(Path(scratch).glob(f"{kind}*.csv")), path)
            print(f"{name}: {path}")


def _run(words: list[str]) -> str:
    """Run a module; gives the path that its last line names."""
    print("python -m", *words, flush=True)
    last = ""
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with _left_to(process):
            for line in process.stdout:
                print(line, end="", flush=True)
                last = line if line.strip() else last
            status = process.wait()
    if status:
        sys.exit(status if status > 0 else 128 - status)
    return last.rpartition(": ")[2].strip()


@contextmanager
def _left_to(process: subprocess.Popen[str]) -> Iterator[None]:
    """Let a process decide what a signal does: it saves, and is waited for."""
    before = {
        # Ctrl-C reaches all processes of a terminal, SIGTERM the first one alone.
        signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: process.terminate()),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def join(sources: list[Path], target: Path) -> None:
    """Write tables of the same columns below each other, without what is local to a machine."""
    rows = []
    for source in sources:
        with source.open(newline="", encoding="utf-8") as file:
            rows += list(csv.DictReader(file))
    if not rows:
        sys.exit(f"error: {target}: the report has no rows, so there is nothing to record")
    shown = [column for column in rows[0] if column not in _LOCAL]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, shown, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(words: list[str]) -> int:
    """Record the tables that are named; gives the exit status."""
    settings = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    unknown = [name for name in names if name not in TABLES]
    if unknown or not names:
        message = f"{unknown[0]}: no such table" if unknown else "no table is named"
        print(f"error: {message}; allowed: {', '.join(TABLES)}", file=sys.stderr)
        return 2
    try:
        for name in names:
            record(name, settings)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
