"""Case: the time until the first step of a training on many pairs."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoTokenizer, BertConfig, BertModel

from mlkd.bench.command import run_training
from mlkd.bench.contest import TableLine
from mlkd.bench.machine import scratch
from mlkd.bench.pairs import write_pairs
from mlkd.bench.stage import assistant_link
from mlkd.config.bench import BenchmarkConfig
from mlkd.metrics.evaluation import open_encoder_folder

_WIDTH = 32
_INTERRUPTED = 143


def measure(config: BenchmarkConfig) -> list[TableLine]:
    """An epoch of synthetic pairs, stopped at its first step: cold caches, then warm ones.

    The teacher is a tiny random one, because the first of the two has to make all target vectors;
    the second only looks them up.
    """
    number, link = config.benchmark.start_pairs, assistant_link(config)
    with scratch(config.output_dir) as folder:
        write_pairs(folder / "pairs.en-de.tsv", number)
        teacher = open_encoder_folder(config.teacher, False, Path(config.output_dir, "cache"))
        write_teacher(teacher, folder / "teacher")
        command = [
            *(f"stage={link}", f"stages.{link}.epochs=1", f"stages.{link}.batch_size=8"),
            *("student.layers=1", "student.bottleneck=8"),
            *("teacher=folder", f"teacher.path={folder / 'teacher'}"),
            *("eval=demo", "eval.bootstrap=0", "data=tsv", f"data.root={folder}"),
            *("data.corpora.pairs.path='pairs.{source}-{target}.tsv'", f"output_dir={folder}/out"),
        ]
        if config.trainer.threads:
            command.append(f"trainer.threads={config.trainer.threads}")
        return [
            run_training(
                f"{number:,} pairs, {state}",
                [*command, f"seed={seed}"],
                status=_INTERRUPTED,
                stop=True,
            )
            for seed, state in enumerate(("cold caches", "warm caches, another seed"))
        ]


def write_teacher(real: Path, folder: Path) -> None:
    """Write a random encoder of one narrow layer with a real encoder's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(real)
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=_WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=2 * _WIDTH,
            pad_token_id=tokenizer.pad_token_id,
        ),
        add_pooling_layer=False,
    )
    backbone = folder / "backbone"
    model.save_pretrained(backbone)
    tokenizer.save_pretrained(backbone)
    modules = [Transformer(str(backbone)), Pooling(_WIDTH, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(
        str(folder), create_model_card=False
    )
