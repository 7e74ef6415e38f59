"""The model card: ``README.md`` of an exported folder, with the hub's metadata."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from scipy.stats import binomtest

from mlkd.config.commands import ExportConfig, ExportFormat
from mlkd.config.inputs import DataConfig, EncoderConfig
from mlkd.deploy.source import Source
from mlkd.metrics.scoring import HEADLINE
from mlkd.metrics.table import rows_of, to_markdown

_LIBRARY = {
    "sentence_transformers": "sentence-transformers",
    "dense": "sentence-transformers",
    "onnx": "onnx",
    "onnx_int8": "onnx",
}
"""What the hub tells its users to load a format with."""

_ENCODE = """from encode import Encoder  # in this folder; pip install onnxruntime tokenizers numpy

model = Encoder(".")
"""

_LOAD = {
    "sentence_transformers": """from pathlib import Path

from mlkd.encoders.folder import load_folder  # needs mlkd, installed from its repository

model = load_folder(Path("."))
""",
    "dense": """from sentence_transformers import SentenceTransformer

model = SentenceTransformer(".")
""",
    "onnx": _ENCODE,
    "onnx_int8": _ENCODE,
}

_USES = {
    "Vectors": """{load}
vectors = model.encode(["Where is my parcel?", "Wo ist mein Paket?"])
print(vectors.shape)
""",
    "Similarity": """import numpy as np
{load}
a, b = (v / np.linalg.norm(v) for v in model.encode(["Good morning!", "Guten Morgen!"]))
print(float(a @ b))
""",
    "Search": """import numpy as np
{load}
texts = ["Wo ist mein Paket?", "Ich möchte bezahlen.", "Das Wetter ist schön."]
index, query = (model.encode(x) for x in (texts, ["Where is my parcel?"]))
cosines = (index @ query[0]) / np.linalg.norm(index, axis=1)
print(texts[cosines.argmax()])
""",
}


def model_card(
    config: ExportConfig,
    source: Source,
    name: ExportFormat,
    reports: dict[str, dict[str, Any]],
    trim: dict[str, Any] | None,
) -> str:
    """Text of the card of one format.

    Args:
        config: The export.
        source: What was exported; without a run the card says less.
        name: The format of the folder that the card is for.
        reports: What was measured of each format.
        trim: What trimming left of the vocabulary, if there was any.
    """
    data = source.section("data", DataConfig)
    languages = sorted(trim["tokens"]) if trim else _languages(data)
    parts = [
        f"---\n{_metadata(config, source, name, languages)}\n---",
        f"# {source.name}, {name}",
        _origin(config, source, data, languages),
    ]
    if trim:
        parts.append(
            f"The vocabulary is trimmed to {trim['kept']:,} of {trim['pieces']:,} pieces: text cut "
            "into these has the vectors of the whole student, other text is cut smaller. The "
            "scores of the run are those of the whole student."
        )
    parts += [
        "## Use\n\nEach of these runs by itself in this folder.\n\n" + "\n".join(_snippets(name)),
        _sizes(name, reports),
    ]
    if "metrics" in source.record:
        parts.append(_scores(source.record))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _metadata(
    config: ExportConfig, source: Source, name: ExportFormat, languages: list[str]
) -> str:
    """YAML for the hub."""
    scores = source.record.get("metrics", {}).get("scores", {"sets": {}})
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
        library_name=_LIBRARY[name],
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
        lines.append(f"- Teacher: {name}{revision} (licence: {teacher_license(teacher)})")
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


def teacher_license(teacher: EncoderConfig) -> str:
    """What the card in the teacher's folder says; of a hub model only its own page does."""
    from mlkd.config.compose import encoder_folder
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


def _languages(data: DataConfig | None) -> list[str]:
    if data is None:
        return []
    both = [x for c in data.corpora.values() for x in (c.source, *c.targets)]
    sources = {c.source for c in data.corpora.values()}
    wanted = set(both) if data.languages is None else sources | set(data.languages)
    return sorted(wanted)


def _snippets(name: ExportFormat) -> list[str]:
    """Three pieces of code; each runs by itself in the folder."""
    load = _LOAD[name]
    return [
        f"{title}:\n\n```python\n{code.format(load=load)}```\n" for title, code in _USES.items()
    ]


def _sizes(name: ExportFormat, reports: dict[str, dict[str, Any]]) -> str:
    """Sizes of the formats that were exported together, and how far they are off."""
    lines = [
        "## Size and agreement with the student",
        "",
        "Vectors at length 1 beside those of the student: largest difference of a coordinate, mean "
        "and smallest cosine. Points lost are those of the score on dev that selects.",
        "",
        "| format | MiB | largest difference | mean cosine | smallest cosine | dev points lost |",
        "| :-- | --: | --: | --: | --: | --: |",
    ]
    for key, report in reports.items():
        lost = report["dev"]["student"] - report["dev"]["export"] if "dev" in report else None
        cosine = report["cosine"]
        lines.append(
            f"| {key}{' (this folder)' if key == name else ''} | {report['mib']:.2f} | "
            f"{report['max_difference']:.1e} | {cosine['mean']:.5f} | {cosine['min']:.5f} | "
            f"{'-' if lost is None else f'{lost:.2f}'} |"
        )
    if name == "onnx_int8":
        lines += [
            "",
            "On x86 without VNNI integer products saturate: int8 is a little further off.",
        ]
    return "\n".join(lines)


def _scores(record: dict[str, Any]) -> str:
    """Scores, sizes and speed of the run, and the intervals."""
    metrics = record["metrics"]
    models = {**record.get("references", {}), "student": metrics}
    lines = [
        "## Scores of the run",
        "",
        f"Of the student as its run measured it, in {metrics.get('precision', 'fp32')}, before it "
        "was exported. STS: Spearman of the cosine; bitext: retrieval accuracy, mean of both "
        "directions; both x100. `par. M`: stored parameters in millions; `kept %`: share of the "
        "assistant's mean test STS; `cos T`: mean cosine with the teacher's vectors of the source "
        "side of dev bitext; `sent/s`: sentences a second at batch 32; `ms`: median of one "
        "sentence; both "
        f"in PyTorch on {record.get('training', {}).get('hardware', 'an unknown machine')}.",
        "",
        to_markdown(rows_of(models)),
        "Intervals (95 %; STS: bootstrap, where the run drew one; bitext: Wilson, of n searches):",
        "",
        "| split | set | pair | score | low | high | n |",
        "| :-- | :-- | :-- | --: | --: | --: | --: |",
    ]
    for set_name, entry in metrics["scores"]["sets"].items():
        for pair, numbers in entry["pairs"].items():
            values = (numbers[HEADLINE[entry["kind"]]], *_interval(entry["kind"], numbers))
            cells = " | ".join("-" if value is None else f"{value:.2f}" for value in values)
            lines.append(f"| {entry['split']} | {set_name} | {pair} | {cells} | {numbers['n']} |")
    return "\n".join(lines)


def _interval(kind: str, numbers: dict[str, Any]) -> tuple[float | None, float | None]:
    """95 % interval of a score x100; None where the run was evaluated without resamples."""
    if kind == "sts":
        return numbers["low"], numbers["high"]
    n = numbers["n"]
    found = binomtest(round(numbers["mean"] / 100 * n), n).proportion_ci(method="wilson")
    return 100 * float(found.low), 100 * float(found.high)
