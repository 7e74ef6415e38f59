from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import torch
from records import make_records
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(2)

ENGLISH = [
    "the red dog runs home",
    "a small cat sleeps here",
    "we drink cold water today",
    "my friend reads a book",
    "they walk to the old house",
    "she cooks soup every evening",
]
GERMAN = [
    "der rote hund läuft nach hause",
    "eine kleine katze schläft hier",
    "wir trinken heute kaltes wasser",
    "mein freund liest ein buch",
    "sie gehen zum alten haus",
    "sie kocht jeden abend suppe",
]


def wordpiece(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=100, special_tokens=special)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
    )


def write_encoder(folder: Path, tokenizer: PreTrainedTokenizerFast, depth: int) -> Path:
    """A real BERT sentence encoder, 16 wide, with random weights."""
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=depth,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            pad_token_id=0,
            initializer_range=0.2,  # so that every layer changes its input
        ),
        add_pooling_layer=False,
    )
    model.save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    transformer = Transformer(str(folder / "backbone"), max_seq_length=32)
    pooling = Pooling(16, pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save_pretrained(
        str(folder / "model"), create_model_card=False
    )
    return folder / "model"


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder of 4 layers that knows both languages."""
    return write_encoder(tmp_path_factory.mktemp("encoder"), wordpiece(ENGLISH + GERMAN), depth=4)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A parallel corpus of 300 pairs and evaluation sets, as TSV files."""
    return write_corpus(tmp_path / "corpus")


def write_corpus(root: Path) -> Path:
    root.mkdir()
    rows = [
        (f"{e} {i}", f"{g} {i}") for i in range(50) for e, g in zip(ENGLISH, GERMAN, strict=True)
    ]
    with gzip.open(root / "pairs.en-de.tsv.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{e}\t{g}\n" for e, g in rows)
    for language, texts in (("en", ENGLISH), ("de", GERMAN)):
        lines = [
            f"{a}\t{b}\t{5 - abs(i - j)}\n"
            for i, a in enumerate(texts)
            for j, b in enumerate(texts)
        ]
        for split, part in (("dev", lines[::2]), ("test", lines[1::2])):
            (root / f"sts-{split}-{language}.tsv").write_text("".join(part), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def sweep(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The multirun folder of a small sweep with a failed and a missing cell; not to be changed."""
    folder = tmp_path_factory.mktemp("sweep")
    return make_records(encoder_folder, write_corpus(folder / "corpus"), folder / "outputs")


@pytest.fixture
def tiny_overrides(encoder_folder: Path, corpus: Path, tmp_path: Path) -> list[str]:
    """A command line whose links take a second each; its outputs are in ``tmp_path / "out"``."""
    return write_overrides(encoder_folder, corpus, tmp_path / "out")


def write_overrides(encoder: Path, corpus: Path, output: Path, steps: int = 3) -> list[str]:
    sets = ",".join(
        f"sts_{split}:{{kind:sts,split:{split},path:'sts-{split}-{{lang}}.tsv',languages:[en,de]}}"
        for split in ("dev", "test")
    )
    stages = ("assistant", "bottleneck", "recurrent", "contrastive")
    sizes = (f"max_steps={steps}", "epochs=9999", "batch_size=16")
    return [
        "data=tsv",
        f"data.root={corpus}",
        "data.dev_fraction=0.2",
        "data.max_tokens=16",
        "eval=base",
        f"eval.root={corpus}",
        f"+eval.sets={{{sets}}}",
        "eval.bootstrap=0",
        "teacher=folder",
        f"teacher.path={encoder}",
        "assistant.vocabulary.size=120",
        "student.bottleneck=4",
        "student.layers=1",
        "trainer.precision=fp32",
        "trainer.threads=1",
        f"output_dir={output}",
        *(f"stages.{stage}.{size}" for stage in stages for size in sizes),
    ]
