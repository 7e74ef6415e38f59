"""Tiny weights behind the real architectures and tokenizers of the hub options."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import trainers as train
from transformers import (
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

XLMR_ROWS = 250_002
SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 34,
}


def fast(tokenizer: Tokenizer, start: str, end: str, **special: str) -> PreTrainedTokenizerFast:
    ids = [(token, tokenizer.token_to_id(token)) for token in (start, end)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token=start,
        bos_token=start,
        eos_token=end,
        sep_token=end,
        model_max_length=32,
        **special,
    )


def unigram(texts: list[str], rows: int) -> PreTrainedTokenizerFast:
    """SentencePiece-Unigram with the special ids of XLM-R."""
    small = Tokenizer(models.Unigram())
    small.pre_tokenizer = pre_tokenizers.Metaspace()
    small.train_from_iterator(texts, train.UnigramTrainer(vocab_size=150, show_progress=False))
    pieces = json.loads(small.to_str())["model"]["vocab"]
    learned = sorted((p, round(s, 3)) for p, s in pieces if p != "<unk>")  # the same each time
    vocabulary = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *learned]
    filler = ((f"▁unseen{i}", -30.0) for i in range(rows - len(vocabulary) - 1))
    tokenizer = Tokenizer(models.Unigram([*vocabulary, *filler, ("<mask>", 0.0)], unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    return fast(tokenizer, "<s>", "</s>", **names)


def byte_bpe(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE as of RoBERTa."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = train.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    return fast(tokenizer, "<s>", "</s>", **names)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    for part in (model, tokenizer):
        part.save_pretrained(folder / "backbone")
    modules = [
        Transformer(str(folder / "backbone"), max_seq_length=32),
        Pooling(16, pooling_mode="mean"),
    ]
    encoder = SentenceTransformer(modules=modules, device="cpu")
    encoder.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def write_xlmr(folder: Path, texts: list[str], rows: int = XLMR_ROWS) -> Path:
    torch.manual_seed(0)
    config = XLMRobertaConfig(**SIZE, vocab_size=rows, type_vocab_size=1, pad_token_id=1)
    return save(XLMRobertaModel(config, add_pooling_layer=False), unigram(texts, rows), folder)


def write_roberta(folder: Path, texts: list[str]) -> Path:
    torch.manual_seed(1)
    tokenizer = byte_bpe(texts)
    config = RobertaConfig(**SIZE, vocab_size=len(tokenizer), type_vocab_size=1, pad_token_id=1)
    return save(RobertaModel(config, add_pooling_layer=False), tokenizer, folder)


def write_mpnet(folder: Path, texts: list[str]) -> Path:
    torch.manual_seed(2)
    tokenizer = byte_bpe(texts)
    config = MPNetConfig(**SIZE, vocab_size=len(tokenizer), pad_token_id=1)
    return save(MPNetModel(config, add_pooling_layer=False), tokenizer, folder)
