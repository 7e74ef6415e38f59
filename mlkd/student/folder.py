"""Student folders: write one, open any sentence encoder folder without running foreign code."""

from __future__ import annotations

import importlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from mlkd.errors import UserError

# Loading takes a second; its bars and reports would drown what the user waits for.
transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()
logging.getLogger("sentence_transformers").setLevel(logging.WARNING)

_OURS = "mlkd.student.encoder.CompactTransformer"


def save_folder(model: SentenceTransformer, folder: Path) -> None:
    """Write the model as a sentence-transformers folder (safetensors, tokenizer, configs)."""
    model.save_pretrained(os.fspath(folder), create_model_card=False)


def load_folder(folder: Path) -> SentenceTransformer:
    """Open a student, an assistant or any sentence-transformers folder, on the CPU, in eval mode.

    Only safetensors weights and the module classes of sentence-transformers and mlkd are loaded;
    nothing is looked up on a hub.

    Raises:
        UserError: The folder is no sentence encoder, or names foreign module classes.
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        raise UserError(f"{folder}: no sentence-transformers folder (it has no modules.json)")
    try:
        entries = json.loads(listing.read_text())
        types = [entry["type"] for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{listing}: not a module list ({error})") from None
    foreign = [t for t in types if t != _OURS and not t.startswith("sentence_transformers.")]
    if foreign:
        raise UserError(
            f"{listing}: module {foreign[0]} is refused; allowed: sentence_transformers.*, {_OURS}"
        )
    if not (folder / "model.safetensors").is_file():
        raise UserError(f"{folder}: no model.safetensors; other weight formats are refused")
    try:
        if _OURS in types:
            modules = [_load_module(folder, entry) for entry in entries]
            return SentenceTransformer(modules=modules, device="cpu").eval()
        return SentenceTransformer(
            os.fspath(folder),
            device="cpu",
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        ).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{folder}: cannot be loaded ({reason})") from error


def _load_module(folder: Path, entry: dict[str, str]) -> Any:
    """Load one entry of ``modules.json``, whose path must lie inside the folder."""
    subfolder = entry["path"]
    if not (folder / subfolder).resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder / 'modules.json'}: path {subfolder} leaves the folder")
    module, name = entry["type"].rsplit(".", 1)
    cls = getattr(importlib.import_module(module), name)
    return cls.load(os.fspath(folder), subfolder=subfolder, local_files_only=True)
