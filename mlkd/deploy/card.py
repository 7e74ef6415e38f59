"""The model card: ``README.md`` of an exported folder, with the hub's metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from scipy.stats import binomtest

from mlkd.config.commands import ExportConfig, ExportFormat
from mlkd.config.inputs import DataConfig, EncoderConfig
from mlkd.deploy.snippets import other_tools, use
from mlkd.deploy.source import Source, languages_of
from mlkd.metrics.scoring import HEADLINE
from mlkd.metrics.table import grid_to_markdown, kinds_grid, sides_grid
from mlkd.storage.files import default_prompt, prompts_of

_LIBRARY = {
    "portable": "sentence-transformers",
    "onnx_int8": "transformers.js",
    "onnx_q4": "transformers.js",
    "compact": "sentence-transformers",
    "gguf": "llama.cpp",
    "sparse": "sentence-transformers",
    "asymmetric": "sentence-transformers",
    "web": "transformers.js",
}
"""What the hub tells its users to load a format with."""


_SHORTER = """`128` are the first 128 numbers of each vector, int8 is a vector times 127 / its
largest number, rounded, and binary has the signs. Scores are those above, the mean over language
pairs."""


_SIDES = """Scores x100 of the student alone, of its queries with the documents of the other
encoder, and of that encoder alone: Spearman of the cosine, or, of translations, how often a query
finds its document / a document its query. `de-en` has German queries and English documents."""


@dataclass(frozen=True)
class FolderFacts:
    """What a card says of the folder that it lies in.

    Attributes:
        name: Its format.
        report: Content of its ``export.json``: ``parts`` by file of weights, ``hardware``, and
            ``trim``, what trimming left of the vocabulary, if there was any; ``base``, the run
            whose student a sparse difference is applied to; ``documents``, the encoder of them and
            scores with it.
        longest: Longer inputs are cut (tokens).
        width: Of a vector.
        mean: Whether the vector is the mean of the last hidden states, at length 1.
    """

    name: ExportFormat
    report: dict[str, Any]
    longest: int
    width: int
    mean: bool

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """What was measured of the weights that are in it, by file."""
        return {f: part for f, part in self.report["parts"].items() if "refused" not in part}

    @property
    def scored(self) -> dict[str, dict[str, Any]]:
        """Those with scores."""
        return {file: part for file, part in self.parts.items() if "scores" in part}


def model_card(config: ExportConfig, source: Source, folder: FolderFacts) -> str:
    """Text of the card of one format.

    Args:
        config: The export.
        source: What was exported; without a run the card says less.
        folder: What the card is for.
    """
    data, trim = source.section("data", DataConfig), folder.report.get("trim")
    prompt = default_prompt(source.folder)
    languages = sorted(trim["tokens"]) if trim else languages_of(data)
    parts = [
        f"---\n{_metadata(config, source, folder, languages)}\n---",
        f"# {source.name}, {folder.name}",
        _origin(config, source, data, languages),
    ]
    if trim:
        parts.append(
            f"The vocabulary is trimmed to {trim['kept']:,} of {trim['pieces']:,} pieces: text cut "
            "into these has the vectors of the whole student, other text is cut smaller."
        )
    parts += [
        f"A text is cut at {folder.longest} tokens, its start and end token among them. "
        + (f"It is read with the prompt {prompt!r}." if prompt else "It needs no prompt."),
        use(folder.name, folder.longest, folder.report),
        other_tools(folder.name, source.name, list(folder.parts)[-1], folder.width, folder.mean),
        _weights(folder),
    ]
    if sides := folder.report.get("documents"):
        lines = grid_to_markdown(sides_grid({sides["name"]: sides}), 4)
        parts.append(f"## Queries and documents\n\n{_SIDES}\n\n{lines}")
    if folder.scored:
        parts.append(_scores(source, folder))
    if kinds := {
        f"`{f}`": part["vectors"] for f, part in folder.parts.items() if "vectors" in part
    }:
        parts.append(f"## Shorter vectors\n\n{_SHORTER}\n\n")
        parts[-1] += grid_to_markdown(kinds_grid(kinds, "weights"), 2)
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _metadata(
    config: ExportConfig, source: Source, folder: FolderFacts, languages: list[str]
) -> str:
    """YAML for the hub; its scores are those of the first weights that have some."""
    none: dict[str, Any] = {"sets": {}}
    scores = next((part["scores"] for part in folder.scored.values()), none)
    results = [
        EvalResult(
            task_type="sentence-similarity",
            dataset_type=set_name,
            dataset_name=f"{set_name} {pair}",
            dataset_config=pair,  # without it the hub takes the pairs of a set for one
            dataset_split=entry["split"],
            metric_type="spearman_cosine" if entry["kind"] == "sts" else "accuracy",
            metric_name="Spearman of the cosine x100"
            if entry["kind"] == "sts"
            else "accuracy x100",
            metric_value=round(numbers[HEADLINE[entry["kind"]]], 2),
        )
        for set_name, entry in scores["sets"].items()
        for pair, numbers in entry["pairs"].items()
        if entry["split"] == "test"
    ]
    teacher = source.section("teacher", EncoderConfig)
    card = ModelCardData(
        language=languages or None,
        license=config.license,
        library_name=_LIBRARY[folder.name],
        pipeline_tag="sentence-similarity",
        tags=["mlkd", "knowledge-distillation", "cross-lingual", "feature-extraction"],
        base_model=teacher.name if teacher is not None else None,
        model_name=source.name if results else None,
        eval_results=results or None,
        ignore_metadata_errors=False,
    )
    return str(card.to_yaml()).strip()


def _origin(
    config: ExportConfig, source: Source, data: DataConfig | None, languages: list[str]
) -> str:
    """What it was distilled from, from which text, under which licences."""
    lines = ["A small multilingual sentence encoder, distilled with mlkd."]
    teacher = source.section("teacher", EncoderConfig)
    if teacher is not None:
        name = teacher.name or teacher.package or Path(teacher.path or "").name
        revision = f" at {teacher.revision}" if teacher.revision else ""
        read = _prompt_of(teacher)
        prompt = f", read with the prompt {read!r}" if read else ""
        lines.append(f"- Teacher: {name}{revision}{prompt} (licence: {teacher_license(teacher)})")
    if languages:
        lines.append(f"- Languages: {', '.join(languages)}")
    if data is not None:
        for key, corpus in data.corpora.items():
            targets = [x for x in corpus.targets if x in (data.languages or corpus.targets)]
            known = config.licenses.get(key, "not recorded; see its source")
            lines.append(
                f"- Pairs: {key}, {corpus.source} to {', '.join(targets)} (licence: {known})"
            )
    lines.append(f"- Licence of the student: {config.license or 'not stated'}")
    return "\n".join([lines[0], "", *lines[1:]])


def _prompt_of(teacher: EncoderConfig) -> str | None:
    """What it put before each sentence; its name where the folder is no longer there."""
    from mlkd.config.backbone import encoder_folder
    from mlkd.output.errors import UserError

    if teacher.prompt is not None:
        return teacher.prompt
    try:
        folder = encoder_folder(teacher)
        prompts, default = ({}, None) if folder is None else prompts_of(folder)
    except UserError:
        return teacher.prompt_name
    return prompts.get(teacher.prompt_name or default or "", teacher.prompt_name)


def teacher_license(teacher: EncoderConfig) -> str:
    """What the card in the teacher's folder says; of a hub model only its own page does."""
    from mlkd.config.backbone import encoder_folder
    from mlkd.output.errors import UserError

    try:
        folder = encoder_folder(teacher)
    except UserError:
        folder = None  # it was there when the student was made
    if folder is not None and (folder / "README.md").is_file():
        text = (folder / "README.md").read_text(encoding="utf-8")
        found = re.search(r"\A---\n.*?^license: *(\S+)", text, re.M | re.S)
        if found:
            return found[1]
    return "not recorded; see its page"


def _weights(folder: FolderFacts) -> str:
    """Sizes, speed and agreement of what is in the folder."""
    lines = [
        "## Weights",
        "",
        "Vectors at length 1 beside those of the student: largest difference of a coordinate, mean "
        "and smallest cosine. Points lost are those of the score on dev that selects, beside the "
        "whole student. `sent/s`: sentences a second at batch 32; `ms`: median of one sentence; "
        f"measured when this folder was written, on {folder.report['hardware']}.",
        "",
        "| weights | MiB | largest difference | mean cosine | smallest cosine | dev points lost | "
        "sent/s | ms |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for file, report in folder.parts.items():
        lost = report["dev"]["student"] - report["dev"]["export"] if "dev" in report else None
        cosine = report["cosine"]
        lines.append(
            f"| `{file}` | {report['mib']:.2f} | {report['max_difference']:.1e} | "
            f"{cosine['mean']:.5f} | {cosine['min']:.5f} | "
            f"{'-' if lost is None else f'{lost:.2f}'} | {_times(report)} |"
        )
    return "\n".join(lines)


def _times(report: dict[str, Any]) -> str:
    """Throughput and latency, where the weights ran as their users run them."""
    if "latency_ms" not in report:
        return "- | -"
    return f"{report['sentences_per_s']:.0f} | {report['latency_ms']['p50']:.1f}"


def _scores(source: Source, folder: FolderFacts) -> str:
    """Scores of each file of weights, with intervals, and of the assistant beside them."""
    names = list(folder.scored)
    known = source.record.get("references", {}).get("assistant", {}).get("scores", {"sets": {}})
    lines = [
        "## Scores",
        "",
        "Of the weights in this folder. STS: Spearman of the cosine; bitext: retrieval accuracy, "
        "mean of both directions; both x100, with 95 % intervals (STS: bootstrap, where it was "
        "drawn; bitext: Wilson, of n searches). The assistant is the large encoder that the "
        "student imitates, scored by its run on the same sentences.",
        "",
        f"| split | set | pair | n | {' | '.join(f'`{name}`' for name in names)} | assistant |",
        "| :-- | :-- | :-- | --: |" + " --: |" * (len(names) + 1),
    ]
    for set_name, entry in folder.scored[names[0]]["scores"]["sets"].items():
        for pair, numbers in entry["pairs"].items():
            cells = [
                _cell(entry["kind"], folder.scored[name]["scores"]["sets"][set_name]["pairs"][pair])
                for name in names
            ]
            theirs = known["sets"].get(set_name, {})
            if theirs.get("content", {}).get(pair) == entry["content"][pair]:
                cells.append(f"{theirs['pairs'][pair][HEADLINE[entry['kind']]]:.2f}")
            else:
                cells.append("-")
            start = f"| {entry['split']} | {set_name} | {pair} | {numbers['n']} | "
            lines.append(start + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(kind: str, numbers: dict[str, Any]) -> str:
    """A score and its interval."""
    low, high = _interval(kind, numbers)
    interval = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    return f"{numbers[HEADLINE[kind]]:.2f}{interval}"


def _interval(kind: str, numbers: dict[str, Any]) -> tuple[float | None, float | None]:
    """95 % interval of a score x100; None where the run was evaluated without resamples."""
    if kind == "sts":
        return numbers["low"], numbers["high"]
    n = numbers["n"]
    found = binomtest(round(numbers["mean"] / 100 * n), n).proportion_ci(method="wilson")
    return 100 * float(found.low), 100 * float(found.high)
