"""Two encoders in one sentence-transformers folder: queries by the student, documents by another.

The folder is a ``Router`` of sentence-transformers 5 and 6. Each side is a folder of its own, which
earlier versions load as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from mlkd.deploy.dense import longest, write_dense
from mlkd.deploy.formats import BATCH, Format, Part, Sides, encoder
from mlkd.encoders.folder import quiet
from mlkd.metrics.scoring import Encode
from mlkd.storage.files import default_prompt, write_json

_KIND = "sentence_transformers.models.Router"
"""As version 5 calls it; version 6 knows the name."""
QUERY, DOCUMENT = "query", "document"
"""Folders of the two sides, and what ``encode_query`` and ``encode_document`` ask for."""


def asymmetric_format(folder: Path, documents: SentenceTransformer, name: str) -> Format:
    """Queries by the student that is exported, documents by another encoder.

    Args:
        folder: Of the encoder of documents,
        documents: which is this one.
        name: ``assistant``, ``teacher`` or ``other encoder``.
    """

    def write(model: SentenceTransformer, target: Path) -> None:
        types: dict[str, str] = {}
        structure = {}
        for side, one in ((QUERY, model), (DOCUMENT, documents)):
            (target / side).mkdir()
            write_dense(one, target / side)
            entries = json.loads((target / side / "modules.json").read_text(encoding="utf-8"))
            found = {f"{side}/{entry['path']}".rstrip("/"): entry["type"] for entry in entries}
            structure[side] = list(found)
            types |= found
        route = {"default_route": DOCUMENT, "allow_empty_key": False}
        write_json(
            target / "router_config.json",
            {"types": types, "structure": structure, "parameters": route},
        )
        write_json(target / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": _KIND}])
        prompts = {QUERY: _prompt(model), DOCUMENT: default_prompt(folder)}
        write_json(
            target / "config_sentence_transformers.json",
            {"prompts": prompts, "default_prompt_name": DOCUMENT, "similarity_fn_name": "cosine"},
        )

    sides = Sides(
        name,
        partial(_open, task=QUERY),
        partial(_open, task=DOCUMENT),
        only_source=name == "teacher",
        longest=longest(documents),
        prompt=default_prompt(folder),
    )
    query, document = (f"{side}/model.safetensors" for side in (QUERY, DOCUMENT))
    return Format(
        write,
        (
            Part(query, sides.queries, 1e-5, scored=False),
            Part(document, sides.documents, 1e-5, scored=False, expected=encoder(documents)),
        ),
        sides,
    )


def _prompt(model: SentenceTransformer) -> str:
    """What a model reads before each sentence."""
    return model.prompts.get(model.default_prompt_name or "") or ""


def _open(folder: Path, *, task: str) -> Encode:
    with quiet():
        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    encode = {QUERY: model.encode_query, DOCUMENT: model.encode_document}[task]

    def run(sentences: Sequence[str]) -> np.ndarray:
        vectors: np.ndarray = encode(list(sentences), batch_size=BATCH, show_progress_bar=False)
        return vectors

    return run
