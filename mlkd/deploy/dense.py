"""The student as a plain Hugging Face encoder: nothing shared, nothing factorised."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from transformers import AutoModel

from mlkd.encoders.backbone import Backbone, backbone_of, layers
from mlkd.encoders.bottleneck import BottleneckEmbedding
from mlkd.encoders.folder import quiet, save_folder


def write_dense(model: SentenceTransformer, folder: Path) -> None:
    """Write a folder that ``SentenceTransformer`` and ``AutoModel`` load without mlkd.

    A recurrent layer is written once a pass, and the factorised word table as its product: the
    folder is as large as the student would be without sharing.
    """
    with tempfile.TemporaryDirectory() as temporary, quiet():
        plain = unrolled(model)
        plain.save_pretrained(temporary)
        tokenizer = copy.deepcopy(model.tokenizer)
        tokenizer.model_max_length = model.max_seq_length  # so that truncation=True cuts there
        tokenizer.save_pretrained(temporary)
        transformer = Transformer(temporary, max_seq_length=model.max_seq_length)
    tail = [copy.deepcopy(module) for module in list(model)[1:]]
    save_folder(SentenceTransformer(modules=[transformer, *tail], device="cpu"), folder)


def unrolled(model: SentenceTransformer) -> Backbone:
    """The backbone with a layer a pass, a full word table and no pooler, on weights of its own."""
    shared = backbone_of(model)
    config = copy.deepcopy(shared.config)
    config.num_hidden_layers = len(layers(shared))
    plain = AutoModel.from_config(config, add_pooling_layer=False)
    # An assistant has the pooler of its teacher, which no sentence vector goes through.
    weights = {n: w for n, w in shared.state_dict().items() if not n.startswith("pooler.")}
    words = shared.get_input_embeddings()
    if isinstance(words, BottleneckEmbedding):
        prefix = "embeddings.word_embeddings"
        for part in ("table", "projection"):
            del weights[f"{prefix}.{part}.weight"]
        weights[f"{prefix}.weight"] = words.whole()
    plain.load_state_dict(weights, strict=True)
    return plain.eval()
