"""What each stage aims at, trains and hands on, seen in a real chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ENGLISH, GERMAN, LINKS, new_student, weights

from mlkd.config.schema import TrainConfig
from mlkd.data.module import PairBatch, PairSource
from mlkd.data.tokens import tokenise
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.encoders.folder import load_folder
from mlkd.encoders.frozen import FrozenEncoder
from mlkd.metrics.size import parameters
from mlkd.storage.files import encoder_fingerprint


class Seen:
    """What every frozen encoder was asked, and the batches that training got."""

    def __init__(self) -> None:
        self.texts: dict[str, set[str]] = {}
        self.batches: list[tuple[PairSource, PairBatch]] = []


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    encode, batch = FrozenEncoder.encode, PairSource.batch

    def spying_encode(self: FrozenEncoder, sentences: Sequence[str], **more: object) -> np.ndarray:
        if str(more.get("description", "")).startswith("vectors of"):
            found.texts.setdefault(self.fingerprint, set()).update(sentences)
        return encode(self, sentences, **more)  # type: ignore[arg-type]

    def spying_batch(self: PairSource, pairs: np.ndarray) -> PairBatch:
        made = batch(self, pairs)
        found.batches.append((self, made))
        return made

    monkeypatch.setattr(FrozenEncoder, "encode", spying_encode)
    monkeypatch.setattr(PairSource, "batch", spying_batch)
    return found


def language(text: str) -> str:
    start = text.rsplit(" ", 1)[0]
    return "en" if start in ENGLISH else "de" if start in GERMAN else "?"


def test_targets_are_those_of_the_paper(
    tiny: Callable[..., TrainConfig], encoder_folder: Path, tmp_path: Path, seen: Seen
) -> None:
    from mlkd.recipes.run import run_chain

    run_chain(tiny())
    out = tmp_path / "out/runs"
    (assistant,) = out.glob("assistant-*/student")
    teacher, taught = encoder_fingerprint(encoder_folder), encoder_fingerprint(assistant)
    languages = {key: {language(t) for t in texts} for key, texts in seen.texts.items()}
    assert languages == {
        f"1-{teacher}-16-fp32": {"en"},  # the teacher never receives a translation
        f"1-{taught}-16-fp32": {"en", "de"},
        f"1-{taught}-16-fp32-embeddings": {"en", "de"},
    }
    encoders = {
        "teacher": FrozenEncoder.open(encoder_folder, max_tokens=16),
        "assistant": FrozenEncoder.open(assistant, max_tokens=16),
        "assistant_embeddings": FrozenEncoder.open(assistant, max_tokens=16, embeddings_only=True),
    }
    aims = [
        ("teacher", "source"),
        ("assistant_embeddings", "translation"),
        ("assistant", "translation"),
        ("teacher", "source"),
    ]
    per_link = len(seen.batches) // 4
    assert per_link > 6
    for number, (encoder, side) in enumerate(aims):
        source, made = seen.batches[number * per_link]
        english = source.pairs.texts(source.pairs.source[made.pairs.numpy()])
        german = source.pairs.texts(source.pairs.translation[made.pairs.numpy()])
        wanted = encoders[encoder].encode(english)
        assert np.allclose(made.source_target, wanted, atol=2e-3)  # kept in half precision
        wanted = encoders[encoder].encode(english if side == "source" else german)
        assert np.allclose(made.translation_target, wanted, atol=2e-3)


def test_a_batch_encodes_each_sentence_once(tiny: Callable[..., TrainConfig], seen: Seen) -> None:
    from mlkd.recipes.run import run_chain

    run_chain(tiny(stage="assistant"))
    source, made = seen.batches[0]
    english = source.pairs.texts(source.pairs.source[made.pairs.numpy()])
    german = source.pairs.texts(source.pairs.translation[made.pairs.numpy()])
    assert len(made.ids) == len({*english, *german})
    tokenizer = load_folder(next(source.pairs.folder.parent.glob("assistant-*"))).tokenizer
    for texts, rows in ((english, made.source), (german, made.translation)):
        for text, row in zip(texts, rows.tolist(), strict=True):
            ids = made.ids[row][made.mask[row].bool()].tolist()
            assert ids == tokenizer(text, truncation=True, max_length=16)["input_ids"]


@pytest.mark.slow
def test_a_stage_on_a_share_of_the_data_sees_no_more(
    tiny: Callable[..., TrainConfig], seen: Seen
) -> None:
    from mlkd.recipes.run import run_chain

    sources: dict[float, set[int]] = {}
    for share in (1.0, 0.5, 0.2):
        seen.batches.clear()
        run_chain(
            tiny(
                f"stages.assistant.fraction={share}",
                "stages.assistant.max_steps=30",
                stage="assistant",
            )
        )
        trained = [set(made.pairs.tolist()) for store, made in seen.batches]
        held = set(seen.batches[0][0].pairs.dev_pairs().tolist())
        sources[share] = set().union(*trained) - held
    assert sources[0.2] < sources[0.5] < sources[1.0]
    assert 0.3 < len(sources[0.5]) / len(sources[1.0]) < 0.7


def test_batches_of_one_domain_each(
    tiny: Callable[..., TrainConfig], corpus: Path, seen: Seen
) -> None:
    from mlkd.recipes.run import run_chain

    rows = [f"they sing {i}\tsie singen {i}\n" for i in range(120)]
    (corpus / "songs.tsv").write_text("".join(rows), encoding="utf-8")
    songs = "+data.corpora.songs={format:tsv,path:songs.tsv,targets:[de],domain:songs}"
    grouping = "stages.assistant.grouping={by:domain,mode:one}"
    run_chain(tiny(songs, grouping, stage="assistant"))
    store = seen.batches[0][0].pairs
    held = set(store.dev_pairs().tolist())
    trained = [made for _, made in seen.batches if held.isdisjoint(made.pairs.tolist())]
    assert [len(set(made.domain.tolist())) for made in trained] == [1] * 6
    assert {store.domains[int(made.domain[0])] for made in trained} == {"general", "songs"}


def test_every_link_starts_from_the_one_before(
    tiny: Callable[..., TrainConfig], assistant: Path, tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    still = "lr=1e-12"
    frozen = [f"stages.recurrent.{still}", f"stages.contrastive.{still}"]
    run_chain(tiny(*frozen))
    after = {name: weights(tmp_path / "out", name) for name in LINKS if name != "assistant"}
    embeddings = [name for name in after["bottleneck"] if name.startswith("embeddings.")]
    assert len(embeddings) >= 5
    for name in embeddings:
        assert torch.allclose(after["bottleneck"][name], after["recurrent"][name], atol=1e-9)
    for name in after["recurrent"]:
        assert torch.allclose(after["recurrent"][name], after["contrastive"][name], atol=1e-9)


@pytest.mark.slow
def test_frozen_encoders_stay_as_they_are(
    tiny: Callable[..., TrainConfig], encoder_folder: Path, assistant: Path
) -> None:
    from mlkd.recipes.run import run_chain

    before = encoder_fingerprint(encoder_folder)
    taught = encoder_fingerprint(assistant / "student")
    run_chain(tiny())
    assert encoder_fingerprint(encoder_folder) == before
    assert encoder_fingerprint(assistant / "student") == taught
    encoder = FrozenEncoder.open(encoder_folder, max_tokens=16)
    assert not any(p.requires_grad for p in encoder.model.parameters())
    assert not encoder.model.training


@pytest.mark.slow
def test_starts_differ_in_their_weights_alone(
    tiny: Callable[..., TrainConfig], chain: dict[str, Path]
) -> None:
    """Wibowo et al. (2024) compare sources: nothing else may differ between them."""
    from mlkd.recipes.chain import open_chain
    from mlkd.recipes.recipe import links

    students, orders = {}, []
    for source, table in (("scratch", "random"), ("base", "svd"), ("teacher", "svd")):
        config = tiny(f"init.source={source}", f"init.embedding={table}", "init.layers=first")
        students[source], again = new_student(config), new_student(config)
        opened = open_chain(config)
        for first, second in zip(students[source].parameters(), again.parameters(), strict=True):
            assert torch.equal(first, second)
        tokens = tokenise(opened.pairs, again.tokenizer, config.data.max_tokens, opened.cache)
        plan, steps = opened.reads(links(config)[-1]).batch_plan(tokens)
        orders.append([plan.batch(step).tolist() for step in range(steps)])
    assert orders[0] == orders[1] == orders[2]
    assert len({parameters(student)["total"] for student in students.values()}) == 1

    folders = {"base": opened.given["base"], "teacher": chain["assistant"] / "student"}
    origins = {name: load_folder(folder) for name, folder in folders.items()}
    for name, student in students.items():
        for origin, model in origins.items():
            pairs = zip(layers(backbone_of(student)), layers(backbone_of(model)), strict=False)
            same = [
                torch.equal(value, copied.state_dict()[key])
                for copied, layer in pairs
                for key, value in layer.state_dict().items()
            ]
            assert all(same) if name == origin else not all(same), (name, origin)
