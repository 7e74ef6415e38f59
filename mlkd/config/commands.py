"""Schemas of the other entry points; like :mod:`mlkd.config.schema`, free of torch."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from mlkd.config.evaluation import EvalConfig
from mlkd.config.formats import Q4Config, WebConfig
from mlkd.config.inputs import DataConfig, EncoderConfig
from mlkd.config.paths import OUTPUTS
from mlkd.config.section import Folder, NewFile, Positive, Section, Several, matching
from mlkd.config.student import TrimConfig
from mlkd.config.training import Accelerator

VectorKind = Annotated[
    str,
    BeforeValidator(lambda given: str(given) if type(given) is int else given),
    matching(
        r"[1-9]\d*(-(int8|binary))?|int8|binary",
        "the first numbers, as 256, int8, binary, or both, as 128-int8",
    ),
]
"""Numbers of a vector, its precision, or both: ``256``, ``int8``, ``binary``, ``128-int8``."""


def _refuse_roots(data: DataConfig | None, sets: EvalConfig | None) -> None:
    """Refuse a folder that no text is read from."""
    of_files = sets is not None and sets.reads_files
    if data is not None and data.root is not None and not (data.reads_files or of_files):
        raise ValueError("data.root: not read, all text is embedded")
    if sets is not None and sets.root is not None and not of_files:
        raise ValueError("eval.root: not read, all sets are embedded")


class EvaluateConfig(Section):
    """The whole of ``python -m mlkd.evaluate``."""

    model: str
    """Student folder, run folder, exported folder or an ``.onnx`` file in it, or hub name with
    ``@revision``."""
    prompt: str | None = None
    """Put before each sentence that the model reads; null = its default prompt, "" = none."""
    prompt_name: str | None = None
    """The same by its name."""
    head: Folder | None = None
    """Folder of a head for classifications; null = that of the run of the model, if it has one."""
    teacher: EncoderConfig | None = None
    """Whose vectors the model's are compared with; null = the teacher of its run, all-MiniLM-L6-v2
    for a model without a run."""
    eval: EvalConfig
    max_tokens: Annotated[int, Field(ge=4, le=512)] | None = None
    """Longer sentences are cut, and where an encoder has no more positions; null = as in the run of
    the model, 64 for one without a run."""
    latency: bool = False
    """Also time teacher, assistant and student in turns, with one thread and two, and measure the
    memory of processes that only encode."""
    compare: Several[str] = Field(default_factory=list)
    """More folders to time with ``latency``: sentence-transformers, or exported ONNX."""
    vectors: Several[VectorKind] = Field(default_factory=list)
    """Also score shorter and coarser vectors of teacher, assistant and student."""
    documents: Several[str] = Field(default_factory=list)
    """Also score the model's queries with documents of other encoders: ``assistant``, that of its
    run; ``teacher``, which reads the source language only; runs or folders."""
    output: NewFile | None = None
    """JSON file to write; null = ``outputs/evaluation-<name of the model>-<hash>.json``."""
    accelerator: Accelerator = "auto"
    allow_download: bool = False

    @model_validator(mode="after")
    def _compare_is_read(self) -> EvaluateConfig:
        if self.prompt is not None and self.prompt_name is not None:
            raise ValueError("give at most one of prompt and prompt_name")
        classifies = any(item.kind == "classification" for item in self.eval.sets.values())
        if self.head is not None and not classifies:
            raise ValueError("head is only read of sets of kind classification")
        if self.compare and not self.latency:
            raise ValueError("compare is only read with latency=true")
        _refuse_roots(None, self.eval)
        return self


ExportFormat = Literal[
    "portable", "onnx_int8", "onnx_q4", "compact", "gguf", "sparse", "asymmetric", "web"
]


class PushConfig(Section):
    """A repository on the hub; the account is the one that ``hf auth login`` knows."""

    repo: Annotated[str, matching(r"[\w.-]+/[\w.-]+", "owner/name")]
    """``owner/name``; created if there is none."""
    private: bool = True
    """Whether a new repository is private."""


class ExportConfig(Section):
    """The whole of ``python -m mlkd.export``."""

    run: Folder
    """Folder of a finished run, or of a student."""
    format: Several[ExportFormat] = Field(min_length=1)
    """What to write, each into a folder of its name."""
    output: Folder | None = None
    """Folder of the results; null = ``outputs/export/<name of the run>``."""
    max_loss: Annotated[float, Field(ge=0.0)] = 0.5
    """Points of dev score that int8, 4 bits or a trimmed vocabulary may lose; what loses more is
    refused."""
    q4: Q4Config | None = None
    """How ``onnx_q4`` stores its word table; null = the defaults."""
    web: WebConfig | None = None
    """What the format ``web`` is made of."""
    eval: EvalConfig | None = None
    """Sets for ``max_loss`` and the model card; null = those of the run, the demo's for a folder
    without a run."""
    documents: str | None = None
    """Who encodes the documents in the format ``asymmetric``: ``assistant``, that of the run;
    ``teacher``; a run or a folder. null = the assistant."""
    vectors: Several[VectorKind] = Field(default_factory=list)
    """Shorter and coarser vectors to score for the model card: the first numbers, ``int8``,
    ``binary``, or both, as ``128-int8``."""
    trim: TrimConfig | None = None
    """Leaves out the pieces that the pairs of some languages do not use; null = none."""
    data: DataConfig | None = None
    """Pairs for ``trim``; null = those of the run."""
    license: str | None = None
    """Licence of the student, as the hub abbreviates it; null = it is yours to choose."""
    licenses: dict[str, str] = Field(default_factory=dict)
    """Licences of corpora, by their key in ``data.corpora``, for the model card."""
    push: PushConfig | None = None
    """Where to upload to; null = nowhere."""

    @model_validator(mode="after")
    def _every_section_is_read(self) -> ExportConfig:
        if self.data is not None and self.trim is None:
            raise ValueError("data is only read by trim; give trim={} as well")
        _refuse_roots(self.data, self.eval)
        if self.trim is not None and "sparse" in self.format:
            raise ValueError("format sparse changes the whole vocabulary's weights; leave trim out")
        if self.documents is not None and "asymmetric" not in self.format:
            raise ValueError("documents is only read by the format asymmetric")
        if self.trim is not None and "asymmetric" in self.format:
            raise ValueError("format asymmetric is compared with a whole student; leave trim out")
        in_4_bits = self.web is not None and self.web.weights == "q4"
        if self.q4 is not None and not ("onnx_q4" in self.format or in_4_bits):
            raise ValueError("q4 is only read by the format onnx_q4, and web with weights=q4")
        if self.web is None and "web" in self.format:
            raise ValueError("format web needs its runtime: give web={runtime: node_modules}")
        if self.web is not None and "web" not in self.format:
            raise ValueError("web is only read by the format web")
        if self.push is not None and "web" in self.format:
            raise ValueError("push: web is a folder for a web server, no model; push onnx_int8")
        without = {"vectors": {"gguf", "asymmetric"}}
        without["max_loss"] = without["vectors"] | {"compact", "sparse"}
        for key, formats in without.items():
            usual = type(self).model_fields[key].get_default(call_default_factory=True)
            if getattr(self, key) != usual and set(self.format) <= formats and self.trim is None:
                read = ", ".join(sorted({*get_args(ExportFormat)} - formats))
                reason = f"not read in the format {self.format[0]}, but in: {read}"
                raise ValueError(f"{key} is {reason}")
        if twice := [name for name in self.format if self.format.count(name) > 1]:
            raise ValueError(f"format: {twice[0]} is named twice")
        if self.push is not None and len(self.format) != 1:
            raise ValueError("push needs exactly one format, since a repository holds one model")
        if self.eval is not None:
            usual = EvalConfig(sets=self.eval.sets).precision
            if self.eval.precision != usual:
                raise ValueError(f"eval.precision={self.eval.precision}: exports run in {usual}")
        return self


class ReportConfig(Section):
    """The whole of ``python -m mlkd.report``."""

    action: Literal["draw", "select", "dashboard"] = "draw"
    """``draw`` writes the report, ``select`` names the best student within a budget, ``dashboard``
    creates the view of W&B."""
    sources: Several[str] = Field(min_length=1)
    """Output folders, multirun folders, folders of runs."""
    budget_mib: Annotated[float, Field(gt=0.0)] | None = None
    """Largest size on disk (MiB) of a student that may be selected."""
    output: Folder | None = None
    """Folder of the report; null = ``report`` in the first source."""
    entity: str | None = None
    """Owner of the W&B project of a dashboard; null = the default one of the API key."""

    @model_validator(mode="after")
    def _budget_selects(self) -> ReportConfig:
        if (self.action == "select") != (self.budget_mib is not None):
            raise ValueError(
                "select needs budget_mib=<MiB>, as in: python -m mlkd.report select budget_mib=20"
            )
        if self.entity is not None and self.action != "dashboard":
            raise ValueError("entity is only read by the action dashboard")
        if self.output is not None and self.action == "select":
            raise ValueError("output is not read by select, which prints what it finds")
        return self


class PairsConfig(Section):
    """The whole of ``python -m mlkd.pairs``, which takes the ``data`` of a training as it is."""

    data: DataConfig
    eval: EvalConfig | None = None
    """Evaluation sets whose sentences are left out, as in training; null = none."""
    show: Annotated[int, Field(ge=0)] = 20
    """Pairs to print."""
    output: NewFile | None = None
    """TSV file for all cleaned pairs, packed if it ends in ``.gz``; null = none."""
    output_dir: Folder = OUTPUTS
    """Where the cache is; a training with the same data and sets finds the pairs there."""
    allow_download: bool = False

    @model_validator(mode="after")
    def _roots_are_read(self) -> PairsConfig:
        _refuse_roots(self.data, self.eval)
        return self


class MineConfig(Section):
    """The whole of ``python -m mlkd.mine``."""

    texts: Annotated[list[Folder], Field(min_length=2, max_length=2)]
    """Two text files, a sentence a line; plain or packed (``.gz``, ``.bz2``, ``.xz``)."""
    model: Folder
    """Exported folder or an ``.onnx`` file in it, student folder, run folder, or folder of
    sentence-transformers."""
    output: NewFile
    """TSV file of the pairs, packed if it ends in ``.gz``."""
    neighbours: Positive = 4
    """Nearest lines on either side whose mean cosine a pair is compared with."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Least score of a pair that is written; null = each line's best one, whatever its score."""
    block: Positive = 1024
    """Lines of either side that are compared at once; it changes memory, not what is found."""


class RunsConfig(Section):
    """The whole of ``python -m mlkd.runs``."""

    action: Literal["list", "prune"] = "list"
    """``prune`` removes unfinished runs and links of chains that no other run needs."""
    output_dir: Folder = OUTPUTS
    ask: bool = True
    """Before anything is removed."""

    @model_validator(mode="after")
    def _prune_asks(self) -> RunsConfig:
        if not self.ask and self.action != "prune":
            raise ValueError("ask is only read by prune")
        return self
