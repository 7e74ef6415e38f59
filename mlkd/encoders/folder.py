"""Student folders: write one, open any sentence encoder folder without running foreign code."""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from mlkd.encoders.tokenizer import read_long_words
from mlkd.output.errors import UserError
from mlkd.storage.files import (
    PROMPTS,
    default_prompt,
    digest,
    mode_of_new_files,
    prompts_of,
    reason_of,
    replacing_folder,
)

_OURS = ("mlkd.encoders.compact.CompactTransformer", "mlkd.student.encoder.CompactTransformer")
"""The module of students; the second name is that of mlkd 0.1."""
_MODULES = ("Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout")
"""Modules of sentence-transformers that are opened; their weights are safetensors or they have
none."""
_WEIGHTS = {"Transformer", "CompactTransformer", "Dense", "LayerNorm"}
_TRACES = {
    *("_name_or_path", "name_or_path", "special_tokens_map_file", "tokenizer_file"),
    *("is_local", "local_files_only", "max_length", "stride", "truncation", "padding"),
}
"""Keys of configurations that say where a model lay, or how its tokenizer was last called."""


def save_folder(model: SentenceTransformer, folder: Path) -> None:
    """Write the model as a sentence-transformers folder (safetensors, tokenizer, configs)."""
    tokenizer: Any = model.tokenizer
    if tokenizer.is_fast:  # where it last cut and padded is no part of the model
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    with quiet():
        model.save_pretrained(os.fspath(folder), create_model_card=False)
    for file in folder.rglob("*config.json"):
        _tidy(file, model.max_seq_length)
    mode_of_new_files([file for file in folder.rglob("*") if file.is_file()])


def _tidy(file: Path, longest: int | None) -> None:
    """Leave out where the model once lay and how it was last called; one maximum length is left."""
    content = json.loads(file.read_text(encoding="utf-8"))
    kept = {key: value for key, value in content.items() if key not in _TRACES}
    if longest is not None and "model_max_length" in kept:
        kept["model_max_length"] = longest
    if kept != content:
        file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_folder(folder: Path | str) -> SentenceTransformer:
    """Open a student, an assistant or any sentence-transformers folder, on the CPU, in eval mode.

    Only safetensors weights and the module classes of sentence-transformers and mlkd are loaded;
    nothing is looked up on a hub. Words of any length are read (see
    :func:`mlkd.encoders.tokenizer.read_long_words`).

    Raises:
        UserError: The folder is no sentence encoder, or names foreign module classes.
    """
    folder = Path(folder)
    entries = _module_list(folder)
    try:
        with quiet():
            if any(kind in _OURS for kind, _ in entries):
                modules = [_load_module(folder, *entry) for entry in entries]
                prompts, name = prompts_of(folder)
                model = SentenceTransformer(
                    modules=modules, device="cpu", prompts=prompts, default_prompt_name=name
                )
            else:
                model = SentenceTransformer(
                    os.fspath(folder),
                    device="cpu",
                    local_files_only=True,
                    trust_remote_code=False,
                    # In whatever precision it was stored: bf16 is by autocast.
                    model_kwargs={"use_safetensors": True, "dtype": torch.float32},
                )
            return read_long_words(model).eval()
    except Exception as error:  # a damaged file fails in any of four libraries
        raise UserError(f"{folder}: cannot be loaded ({reason_of(error)})") from error


def with_prompt(folder: Path, prompt: str, cache: Path) -> Path:
    """An encoder folder that puts ``prompt`` before each sentence by default.

    Args:
        folder: Left as it is, and itself the result where it does so already.
        prompt: Empty for none.
        cache: Gets a folder of links to the files of ``folder``.
    """
    if default_prompt(folder) == prompt:
        return folder
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    files = [path for path in files if path.parts[0] not in (PROMPTS, ".git", ".cache")]
    key = [str(folder.resolve()), prompt, [str(path) for path in files]]
    target = cache / f"prompted-{digest(key)}"
    if not target.is_dir():
        given = {"model_type": "SentenceTransformer", "prompts": {"default": prompt}}
        with replacing_folder(target) as part:
            for path in files:
                (part / path).parent.mkdir(parents=True, exist_ok=True)
                (part / path).symlink_to((folder / path).resolve())
            text = json.dumps(given | {"default_prompt_name": "default"}, ensure_ascii=False)
            (part / PROMPTS).write_text(text + "\n", encoding="utf-8")
    return target


def without_prompts(model: SentenceTransformer) -> SentenceTransformer:
    """The model itself, which reads sentences as they are from now on."""
    model.prompts, model.default_prompt_name = {}, None
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and reports of the libraries: loading takes a second, they would drown the rest."""
    loggers = [logging.getLogger(name) for name in ("transformers", "sentence_transformers")]
    levels = [logger.level for logger in loggers]
    # Its switch for bars would turn those of downloads off as well.
    hook = transformers_logging.set_tqdm_hook(_no_bar)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(hook)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _no_bar(factory: Any, args: Any, kwargs: Any) -> Any:
    return transformers_logging.EmptyTqdm(*args, **kwargs)


def _module_list(folder: Path) -> list[tuple[str, str]]:
    """Class and subfolder of each module, if all of them may be opened."""
    listing = folder / "modules.json"
    if not listing.is_file():
        raise UserError(f"{folder}: no sentence-transformers folder (it has no modules.json)")
    try:
        content = json.loads(listing.read_text(encoding="utf-8"))
        entries = [(str(entry["type"]), str(entry["path"])) for entry in content]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{listing}: not a module list ({reason_of(error)})") from None
    if not entries:
        raise UserError(f"{listing}: it names no module")
    for kind, subfolder in entries:
        name = kind.rpartition(".")[2]
        if kind not in _OURS and not (
            kind.startswith("sentence_transformers.") and name in _MODULES
        ):
            if name == "Router":
                inner = ", ".join(
                    str(path.parent) for path in sorted(folder.glob("*/modules.json"))
                )
                raise UserError(f"{folder}: holds several encoders; give one of them: {inner}")
            raise UserError(
                f"{listing}: module {kind} is refused; allowed: {_OURS[0]} and, of "
                f"sentence_transformers, {', '.join(_MODULES)}"
            )
        place = folder / subfolder
        if "\0" in subfolder or not place.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{listing}: path {subfolder!r} leaves the folder")
        if name in _WEIGHTS and not (place / "model.safetensors").is_file():
            raise UserError(f"{place}: no model.safetensors; other weight formats are refused")
        if (place / "adapter_config.json").exists():  # it names a model somewhere else
            raise UserError(f"{place / 'adapter_config.json'}: adapters are refused; merge it")
    return entries


def _load_module(folder: Path, kind: str, subfolder: str) -> Any:
    """Load one checked entry of ``modules.json``."""
    module, name = kind.rsplit(".", 1)
    cls = getattr(importlib.import_module(module), name)
    return cls.load(os.fspath(folder), subfolder=subfolder, local_files_only=True)
