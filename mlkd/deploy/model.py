"""The model that is evaluated; free of torch, so that wrong input is refused at once."""

from __future__ import annotations

from pathlib import Path

from mlkd.config.commands import EvaluateConfig
from mlkd.config.paths import encoder_at
from mlkd.deploy.exported import ExportedGraph, exported
from mlkd.metrics.sets import load_sets
from mlkd.output.errors import UserError
from mlkd.output.extras import need


def check_model(config: EvaluateConfig) -> None:
    """Look at what an evaluation needs, as far as that needs no torch.

    Raises:
        UserError: There is no such model, or a set cannot be read.
    """
    if not is_hub_name(config.model):
        graph_of(config, encoder_at(config.model))
    load_sets(config.eval)


def is_hub_name(model: str) -> bool:
    """Whether a model is a name with a revision, and no folder."""
    return "@" in model and not encoder_at(model).exists()


def graph_of(config: EvaluateConfig, folder: Path) -> ExportedGraph | None:
    """The graph that a model is; None for a folder of sentence-transformers.

    Raises:
        UserError: It is neither of the two, or a graph does not follow the settings.
    """
    graph = exported(folder)
    if graph is not None:
        _check_graph(config)
    elif not (folder / "modules.json").is_file():
        raise UserError(
            f"model={config.model}: give a student folder, the folder of a finished run, a "
            "sentence-transformers or an exported folder, an exported .onnx file, or a hub name as "
            "name@revision"
        )
    return graph


def _check_graph(config: EvaluateConfig) -> None:
    """Refuse what an exported graph does not follow, or where it cannot run."""
    if config.max_tokens is not None:
        raise UserError(f"max_tokens={config.max_tokens}: an exported folder cuts at its own")
    if config.prompt is not None or config.prompt_name is not None:
        raise UserError("prompt and prompt_name: an exported graph reads sentences as they are")
    if config.eval.precision != "fp32":
        raise UserError(f"eval.precision={config.eval.precision}: a graph runs in its own")
    if config.latency and config.model.endswith(".onnx"):
        raise UserError("latency: times folders, with the graph that encode.py chooses; give one")
    need(["onnx", "onnxruntime"], "export", f"model={config.model}")
