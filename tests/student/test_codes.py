from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import stored_tokens, weights
from sentence_transformers import SentenceTransformer
from sklearn.cluster import KMeans

from mlkd.config.formats import Q4Config
from mlkd.config.student import InitConfig, StudentConfig
from mlkd.deploy.dense import unrolled
from mlkd.deploy.onnx_encoder import build_graph
from mlkd.encoders.backbone import backbone_of
from mlkd.encoders.coded import CodedEmbedding
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.metrics.size import parameters
from mlkd.output.errors import UserError
from mlkd.recipes.run import run_chain
from mlkd.student.codes import fit_codes
from mlkd.student.initialise import build_student
from mlkd.student.trim import trimmed

TEXTS = ["the red dog runs home", "eine kleine katze schläft hier und heute"]


def coded(folder: Path, codes: int = 4, **init: str) -> SentenceTransformer:
    source = load_folder(folder)
    size = StudentConfig(bottleneck=None, codes=codes, layers=2, recurrence=1)
    chosen = {"source": "teacher", "layers": "first", "embedding": "kmeans"} | init
    frequency = torch.ones(backbone_of(source).config.vocab_size)
    return build_student(source, size, InitConfig(**chosen), frequency, 16)


def test_few_different_rows_are_kept_as_they_are() -> None:
    table = torch.randn(256, 12)
    module = CodedEmbedding(512, 3, 12)
    fit_codes(module, table.repeat(2, 1), torch.rand(512) + 0.1, seed=0)
    assert torch.equal(module.whole(), table.repeat(2, 1))


def test_a_row_is_the_nearest_centroids_of_its_parts() -> None:
    torch.manual_seed(0)
    table = torch.randn(900, 8)
    module = CodedEmbedding(900, 2, 8)
    fit_codes(module, table, torch.rand(900) + 0.1, seed=0)
    for row, codes in zip(table, module.codes, strict=True):
        for part, code in enumerate(codes.tolist()):
            distances = (module.centroids[part] - row[4 * part : 4 * part + 4]).square().sum(1)
            assert distances[code] <= distances.min() + 1e-5
    expected = torch.stack(
        [
            torch.cat([module.centroids[m, c] for m, c in enumerate(row)])
            for row in module.codes.tolist()
        ]
    )
    ids = torch.tensor([[3, 899], [0, 3]])
    assert torch.equal(module(ids), expected[ids])


def test_centroids_are_those_of_25_rounds_with_a_seed_for_each_part() -> None:
    torch.manual_seed(0)
    table, weight = torch.randn(8000, 8), torch.rand(8000) + 0.1
    module = CodedEmbedding(8000, 2, 8)
    fit_codes(module, table, weight, seed=5)
    for part in range(2):
        own = table[:, 4 * part : 4 * part + 4].numpy()
        values, order = np.unique(own, axis=0, return_index=True)
        found = KMeans(256, n_init=1, max_iter=25, random_state=5 + part)
        found.fit(values, sample_weight=weight.double().numpy()[order])
        assert found.n_iter_ == 25  # one more would change them
        assert np.allclose(module.centroids[part].detach(), found.cluster_centers_, atol=1e-6)


def test_rows_that_weigh_more_are_nearer() -> None:
    torch.manual_seed(0)
    table, weight = torch.randn(2000, 8), torch.ones(2000)
    weight[:100] = 1000.0
    module = CodedEmbedding(2000, 1, 8)
    fit_codes(module, table, weight, seed=0)
    errors = (module.whole() - table).square().sum(1)
    assert errors[:100].mean() < 0.2 * errors[100:].mean()


def test_the_seed_decides() -> None:
    table = torch.randn(900, 8)
    tables = []
    for seed in (0, 0, 1):
        module = CodedEmbedding(900, 2, 8)
        fit_codes(module, table, torch.ones(900), seed)
        tables.append(module.whole())
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_a_centroid_has_the_gradients_of_the_rows_that_use_it() -> None:
    torch.manual_seed(0)
    module = CodedEmbedding(20, 2, 6)
    module.reset_parameters()
    ids, upstream = torch.randint(20, (3, 5)), torch.randn(3, 5, 6)
    (module(ids) * upstream).sum().backward()
    expected = torch.zeros_like(module.centroids)
    for word, gradient in zip(ids.flatten(), upstream.flatten(0, 1), strict=True):
        for part in range(2):
            expected[part, module.codes[word, part].long()] += gradient[3 * part : 3 * part + 3]
    assert torch.allclose(module.centroids.grad, expected, atol=1e-6)


def test_folders_and_sizes(encoder_folder: Path, tmp_path: Path) -> None:
    model = coded(encoder_folder)
    save_folder(model, tmp_path / "student")
    loaded = load_folder(tmp_path / "student")
    assert (loaded.encode(TEXTS) == model.encode(TEXTS)).all()
    words, config = backbone_of(model).get_input_embeddings(), backbone_of(model).config
    parts = backbone_of(model).embeddings
    small = (parts.position_embeddings, parts.token_type_embeddings, parts.LayerNorm)
    rest = sum(p.numel() for module in small for p in module.parameters())
    stored = words.codes.numel() + 256 * config.hidden_size
    assert words.codes.numel() == 4 * config.vocab_size
    assert parameters(model)["embedding"] == stored + rest


def test_trimming_keeps_vectors(encoder_folder: Path) -> None:
    model = coded(encoder_folder)
    keep = np.zeros(backbone_of(model).config.vocab_size, bool)
    keep[stored_tokens(model, TEXTS).ids] = True
    keep[model.tokenizer.all_special_ids] = True
    assert not keep.all()
    small = trimmed(model, keep)
    assert np.allclose(small.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    assert len(backbone_of(small).get_input_embeddings().codes) == keep.sum()


@pytest.mark.parametrize(("kind", "least"), [("fp32", 1 - 1e-5), ("int8", 0.97), ("q4", 0.9)])
def test_the_graph_stores_codes(encoder_folder: Path, kind: Any, least: float) -> None:
    model = coded(encoder_folder)
    proto = build_graph(model, kind)
    stored = {weight.name: weight for weight in proto.graph.initializer}
    vocabulary = backbone_of(model).config.vocab_size
    assert len(stored["words.codes"].raw_data) == 4 * vocabulary
    assert not any(name.startswith(("words.int8", "projection")) for name in stored)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    read = model.preprocess(TEXTS)
    inputs = {name: read[name].numpy() for name in ("input_ids", "attention_mask")}
    (vectors,) = session.run(["sentence_embedding"], inputs)
    wanted = model.encode(TEXTS, normalize_embeddings=True)
    assert (vectors * wanted).sum(1).min() >= least


def test_codes_are_not_coded_again(encoder_folder: Path) -> None:
    with pytest.raises(UserError, match=r"^q4.table: the student's word table was trained in code"):
        build_graph(coded(encoder_folder), "q4", Q4Config())


def test_plain_weights_have_the_whole_table(encoder_folder: Path) -> None:
    model = coded(encoder_folder)
    table = unrolled(model).get_input_embeddings().weight
    assert torch.equal(table, backbone_of(model).get_input_embeddings().whole())


def test_training_moves_centroids_and_no_code(tiny, tmp_path: Path) -> None:
    words = ("student.bottleneck=null", "student.codes=4", "init=codes")
    run_chain(tiny(*words, "stages.bottleneck.enabled=false", stage="recurrent"))
    prefix = "embeddings.word_embeddings."
    after = weights(tmp_path / "out", "recurrent")
    start = coded_start(tmp_path / "out", after[f"{prefix}codes"])
    assert torch.equal(start.codes, after[f"{prefix}codes"])
    used = [start.codes[:, part].unique().long() for part in range(4)]
    moved = (start.centroids != after[f"{prefix}centroids"]).any(2)
    assert all(moved[part, codes].any() for part, codes in enumerate(used))


def coded_start(output: Path, like: torch.Tensor) -> CodedEmbedding:
    """The table of the student before it was trained, from what the assistant has."""
    (run,) = (output / "runs").glob("assistant-*")
    source = load_folder(run / "student")
    words = backbone_of(source).get_input_embeddings().weight.detach()
    assert len(words) == len(like)
    module = CodedEmbedding(*like.shape, words.shape[1])
    fit_codes(module, words, torch.ones(len(words)), seed=0)
    return module


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["student.codes=4"], "give bottleneck or codes, not both"),
        (["student.bottleneck=null", "student.codes=4"], "use kmeans or random"),
        (["init=codes"], "use svd or random"),
    ],
)
def test_impossible_combinations_are_one_line(tiny, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(*words)


def test_codes_divide_the_width(encoder_folder: Path) -> None:
    with pytest.raises(UserError, match=r"student\.codes=5: the backbone is .* wide; allowed: 1, "):
        coded(encoder_folder, codes=5)


@pytest.mark.parametrize("name", ["encoder_folder", "xlmr"])
def test_positions_that_no_input_reaches_are_left_out(
    name: str, request: pytest.FixtureRequest
) -> None:
    source = load_folder(request.getfixturevalue(name))
    frequency = torch.ones(backbone_of(source).config.vocab_size)
    init = InitConfig(source="teacher", layers="first", embedding="copy")
    texts = [*TEXTS, " ".join(TEXTS * 9)]
    vectors = []
    for cut in (False, True):
        size = StudentConfig(bottleneck=None, layers=2, recurrence=1, cut_positions=cut)
        model = build_student(source, size, init, frequency, 16)
        vectors.append(model.encode(texts))
    rows = backbone_of(model).embeddings.position_embeddings.num_embeddings
    assert rows == 16 + (0 if name == "encoder_folder" else model.tokenizer.pad_token_id + 1)
    assert (vectors[0] == vectors[1]).all()
