from __future__ import annotations

import gzip
import json
import logging
import os
import runpy
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from mlkd.config.compose import configured
from mlkd.config.schema import TrainConfig
from mlkd.config.stages import StageSettings, known_stages
from mlkd.config.trees import keeping
from mlkd.output.errors import Interrupted

# The process that hands out the tests reads this file too and runs none of them: what takes
# seconds to import is imported where it is needed.
if TYPE_CHECKING:
    import torch
    from lightning import Callback
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerFast

    from mlkd.data.module import PairBatch
    from mlkd.data.tokens import TokenStore
    from mlkd.stages.base import Stage

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_ERROR_REPORTING"] = "false"  # by a thread, a minute later
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

Command = Callable[..., CompletedProcess[str]]
Once = Callable[[str, Callable[[Path], Path]], Path]

LONGEST = (
    "test_slurm.py", "test_slurm_limits.py", "test_chain.py", "test_ranks.py", "test_sweeps.py",
    "test_report.py", "test_export.py", "test_readme.py", "test_resume.py", "test_sparse.py",
    "test_running.py", "test_import.py", "test_api.py", "test_fuzz.py", "test_budget.py",
)  # fmt: skip

LINKS = ("assistant", "bottleneck", "recurrent", "contrastive")
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: a process that is left with one would let the other wait."""
    names = [*LONGEST, ""]
    items.sort(key=lambda item: names.index(item.path.name if item.path.name in names else ""))


def wordpiece(texts: list[str], unused: int = 0) -> PreTrainedTokenizerFast:
    """An uncased vocabulary, the same each time; ids after that of padding may be unused.

    The trainer numbers what it was not told of in the random order of a hash map.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = " ".join(map(tokenizer.normalizer.normalize_str, texts)).split()
    inside = sorted({f"##{letter}" for word in words for letter in word[1:]})
    empty = [f"[unused{i}]" for i in range(unused)]
    special = ["[PAD]", *empty, "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=100, special_tokens=[*special, *inside])
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2 + unused), ("[SEP]", 3 + unused)]
    )
    state = json.loads(tokenizer.to_str())
    added = {special[0], *special[-4:]}
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in added]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
    )


def write_encoder(folder: Path, tokenizer: PreTrainedTokenizerFast, depth: int) -> Path:
    """A real BERT sentence encoder, 16 wide, with random weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel

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


@pytest.fixture(scope="session", autouse=True)
def kept_trees() -> Iterator[None]:
    """Options that tests compose again and again are read once; no test changes ``conf/``."""
    with keeping():
        yield


@pytest.fixture(scope="session", autouse=True)
def short_races() -> Iterator[None]:
    """Times are measured as they are, of fewer sentences and without waiting in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlkd.metrics.speed.SETTLE_SECONDS", 0.0)
        patch.setattr("mlkd.metrics.speed.LATENCY_SENTENCES", 10)
        yield


@pytest.fixture(autouse=True)
def usual_levels() -> None:
    """What is logged does not depend on the tests that ran before in this process."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("mlkd").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a folder in the first process that wants it; the others share it. Not to be changed."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def made(name: str, make: Callable[[Path], Path]) -> Path:
        done = root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                (root / name).mkdir()
                done.write_text(str(make(root / name)))
        return Path(done.read_text())

    return made


@pytest.fixture(scope="session")
def encoder_folder(once: Once) -> Path:
    """A sentence encoder of 4 layers that knows both languages."""
    return once("encoder", lambda at: write_encoder(at, wordpiece(ENGLISH + GERMAN), depth=4))


@pytest.fixture(scope="session")
def xlmr(once: Once) -> Path:
    """An XLM-R with an eighth of its vocabulary."""
    from architectures import write_xlmr

    return once("xlmr", lambda at: write_xlmr(at, ENGLISH + GERMAN, rows=30_002))


@pytest.fixture(scope="session")
def xlmr_full(once: Once) -> Path:
    """With all of it."""
    from architectures import write_xlmr

    return once("xlmr_full", lambda at: write_xlmr(at, ENGLISH + GERMAN))


@pytest.fixture(scope="session")
def roberta(once: Once) -> Path:
    from architectures import write_roberta

    return once("roberta", lambda at: write_roberta(at, ENGLISH))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A parallel corpus of 300 pairs and evaluation sets, as TSV files."""
    return write_corpus(tmp_path / "corpus")


def write_corpus(root: Path) -> Path:
    root.mkdir()
    rows = [
        (f"{e} {i}", f"{g} {i}") for i in range(50) for e, g in zip(ENGLISH, GERMAN, strict=True)
    ]
    text = "".join(f"{e}\t{g}\n" for e, g in rows)
    # Without the time: caches of one such corpus are those of another.
    (root / "pairs.en-de.tsv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
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
def sweep(encoder_folder: Path, once: Once) -> Path:
    """The multirun folder of a small sweep with a failed and a missing cell."""
    from records import make_records

    def make(folder: Path) -> Path:
        return make_records(encoder_folder, write_corpus(folder / "corpus"), folder / "outputs")

    return once("sweep", make)


def sts_settings(root: Path) -> list[str]:
    """The evaluation sets of a corpus folder."""
    sets = ",".join(
        f"{split}:{{kind:sts,split:{split},path:'sts-{split}-{{lang}}.tsv',languages:[en,de]}}"
        for split in ("dev", "test")
    )
    return ["eval=base", f"eval.root={root}", f"+eval.sets={{{sets}}}", "eval.bootstrap=0"]


def tiny_settings(encoder: Path, corpus: Path, output: Path, steps: int = 6) -> list[str]:
    """A command line whose links take a second each."""
    sizes = (f"max_steps={steps}", "epochs=9999", "batch_size=16")
    return [
        "data=tsv",
        f"data.root={corpus}",
        "data.dev_fraction=0.2",
        "data.max_tokens=16",
        *sts_settings(corpus),
        "teacher=folder",
        f"teacher.path={encoder}",
        "assistant.vocabulary.size=120",
        "student.bottleneck=4",
        "student.layers=2",
        "trainer.precision=fp32",
        "trainer.threads=1",
        f"output_dir={output}",
        *(f"stages.{link}.{size}" for link in LINKS for size in sizes),
    ]


def stored_tokens(model: SentenceTransformer, texts: list[str]) -> TokenStore:
    """Sentences as training has them."""
    import numpy as np

    from mlkd.data.tokens import TokenStore

    rows = model.tokenizer(texts, truncation=True, max_length=16)["input_ids"]
    offsets = np.cumsum([0, *map(len, rows)])
    return TokenStore(np.concatenate(rows), offsets, model.tokenizer.pad_token_id)


def link_settings(stage: str, loss: dict[str, Any], **optim: float) -> StageSettings:
    """A link of three pairs a step."""
    budget = {"epochs": 1, "batch_size": 3, "lr": 0.01, "optim": optim}
    values = {"stage": stage, "inputs": {"start": "base", "target": "teacher"}, "loss": loss}
    return known_stages()[stage].model_validate(values | budget)


def take_steps(
    stage: Stage, train: list[PairBatch], dev: list[PairBatch], *callbacks: Callback
) -> None:
    """Train a stage on its own, a batch a step; after each it looks at dev."""
    import lightning as L
    from torch.utils.data import DataLoader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders
        trainer = L.Trainer(
            accelerator="cpu", max_steps=len(train), val_check_interval=1, num_sanity_val_steps=0,
            logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[*callbacks],
        )  # fmt: skip
        given: list[Any] = [train, dev]
        trainer.fit(stage, *(DataLoader(batches, batch_size=None) for batches in given))


def configure(*overrides: str) -> TrainConfig:
    return configured("train", TrainConfig, overrides)


@pytest.fixture
def tiny(encoder_folder: Path, corpus: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Configurations of tiny chains; their outputs are in ``tmp_path / "out"``."""
    settings = tiny_settings(encoder_folder, corpus, tmp_path / "out")

    def build(*overrides: str, stage: str = "contrastive") -> TrainConfig:
        return configure(f"stage={stage}", *settings, *overrides)

    return build


def run_tiny(encoder: Path, output: Path, stage: str) -> Path:
    """Run ``tiny(stage=stage)`` with a corpus beside its outputs."""
    from mlkd.recipes.run import run_chain

    corpus = output.with_name("corpus")
    if not corpus.exists():
        write_corpus(corpus)
    run_chain(configure(f"stage={stage}", *tiny_settings(encoder, corpus, output)))
    return output


@pytest.fixture(scope="session")
def finished_assistant(encoder_folder: Path, once: Once) -> Path:
    """What ``run_chain(tiny(stage="assistant"))`` leaves."""
    return once("assistant", lambda at: run_tiny(encoder_folder, at / "out", "assistant"))


@pytest.fixture(scope="session")
def finished_chain(encoder_folder: Path, finished_assistant: Path, once: Once) -> Path:
    """The same of ``run_chain(tiny())``."""

    def make(folder: Path) -> Path:
        output = shutil.copytree(finished_assistant, folder / "out")
        return run_tiny(encoder_folder, output, "contrastive")

    return once("chain", make)


def new_student(config: TrainConfig) -> SentenceTransformer:
    """The student of a chain before any training; its assistant is trained if it is not yet."""
    from mlkd.recipes.chain import open_chain
    from mlkd.recipes.link import run_link
    from mlkd.recipes.recipe import New, links

    opened = open_chain(config)
    for link in links(config):
        if isinstance(start := link.inputs["start"], New):
            return opened.new_student(start)
        run_link(opened, link)
    raise AssertionError("no link makes a student")


@pytest.fixture
def assistant(finished_assistant: Path, tmp_path: Path) -> Path:
    """Run folder of the first link in ``tmp_path / "out"``, finished by an earlier call."""
    (folder,) = shutil.copytree(finished_assistant, tmp_path / "out").glob("runs/assistant-*")
    return folder


@pytest.fixture
def chain(finished_chain: Path, tmp_path: Path) -> dict[str, Path]:
    """Run folders of all links, by stage."""
    folders = shutil.copytree(finished_chain, tmp_path / "out").glob("runs/*-*")
    return {folder.name.split("-")[0]: folder for folder in folders}


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """``python -m <module> <words>`` in this process: a new one takes seconds to start."""

    def call(module: str, *words: str) -> CompletedProcess[str]:
        root = logging.getLogger()
        handlers, level, status = root.handlers[:], root.level, 0
        capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*found in sys.modules")
            patch.setattr(sys, "argv", [module, *words])
            patch.setattr(sys, "excepthook", sys.excepthook)
            patch.setenv("HYDRA_FULL_ERROR", "1")  # so that it is as before afterwards
            patch.setenv("TOKENIZERS_PARALLELISM", "true")
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                status = int(end.code or 0)
            finally:
                root.handlers[:] = handlers
                root.setLevel(level)  # the attribute alone leaves what loggers remember of it
        return CompletedProcess([module, *words], status, *capfd.readouterr())

    return call


def weights(output: Path, stage: str) -> dict[str, torch.Tensor]:
    """Of the only run of a stage."""
    from safetensors.torch import load_file

    (folder,) = (output / "runs").glob(f"{stage}-*")
    return load_file(folder / "student" / "model.safetensors")


def at_steps(
    monkeypatch: pytest.MonkeyPatch, steps: Collection[int], act: Callable[[Stage, PairBatch], None]
) -> None:
    """Do something in the middle of some training steps."""
    from mlkd.stages.base import Stage

    original = Stage.training_step

    def training_step(self: Stage, batch: PairBatch, batch_idx: int) -> torch.Tensor:
        if self.global_step in steps:
            act(self, batch)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(Stage, "training_step", training_step)


def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """For checkpoints a step takes one second, a save an eighth, whatever the machine does."""
    from mlkd.training.checkpoint import Checkpoint

    clock = [0.0]

    def advances(name: str, seconds: float) -> None:
        original = getattr(Checkpoint, name)

        def call(*args: Any) -> None:
            clock[0] += seconds
            original(*args)

        monkeypatch.setattr(Checkpoint, name, call)

    advances("on_train_batch_start", 1.0)
    advances("on_save_checkpoint", 0.125)
    monkeypatch.setattr(
        "mlkd.training.checkpoint.time", SimpleNamespace(monotonic=lambda: clock[0])
    )


def run_until(config: TrainConfig, step: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Run a chain that gets a signal in the middle of a step, which it finishes and saves."""
    from mlkd.recipes.run import run_chain

    with pytest.MonkeyPatch.context() as patch:
        at_steps(patch, {step}, lambda *_: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match=number.name):
            run_chain(config)
