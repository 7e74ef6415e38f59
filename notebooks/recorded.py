"""What the tables of results are recorded from: the commands of each, and their training text."""

from __future__ import annotations

from dataclasses import dataclass

_TWO = "English, German"
_SIX = "English, German, Spanish, French, Italian, Dutch"
_FEW = (
    "stages.task.fraction=0.02 stages.task.epochs=15 "
    "stages.domains.fraction=0.02 stages.domains.epochs=25"
)
_EVEN = "stages.domains.graph=null"
_RELEASED = " ".join(
    f"stages.domains.graph.{setting}"
    for setting in (
        "update=frozen detach_prototypes=false mix=0.0 residual=false rank=null heads=8 "
        "head_width=384 dropout=0.1"
    ).split()
)
"""The graph of the code that came with HRKD, for encoders of width 384."""
_TURNS = "stages.domains.graph.update=alternate stages.domains.max_steps=200"
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
            f"-m experiment=few_domains {_RELEASED} seed=0,1,2",
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
            "-m experiment=sparse_sentiment stages.sparse.density=0.01,0.04,0.08,0.16 seed=0,1,2",
        ),
        assistant="experiment=headline_mse stage=assistant stages.assistant.max_steps=2000",
    ),
    "hrkd_genres": Table(
        "English",
        (
            "-m experiment=real_genres seed=0,1,2",
            "-m experiment=real_genres stages.domains.graph=null seed=0,1,2",
        ),
    ),
    "hrkd_similarity": Table(
        _SIX,
        tuple(
            f"-m experiment=similarity_domains stages.domains.grouping.by=language,domain{words} "
            "seed=0,1,2"
            for words in ("", f" {_EVEN}", f" {_TURNS}", f" {_NARROW}", f" {_NARROW} {_EVEN}")
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
