from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import stored_tokens
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

from mlkd.config.student import InitConfig, StudentConfig
from mlkd.encoders.backbone import backbone_of, layers, set_layers
from mlkd.encoders.bottleneck import BottleneckEmbedding
from mlkd.encoders.compact import mean_pool
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.output.errors import UserError
from mlkd.student.initialise import (
    build_student,
    check_student,
    executed_layer_map,
    layer_map,
)
from mlkd.student.narrow import narrowed

TEXTS = ["the red dog runs home", "eine kleine katze schläft hier und heute"]


def student(folder: Path, bottleneck: int | None, layers: int, recurrence: int, **init: str):
    source = load_folder(folder)
    chosen = {"source": "teacher", "layers": "first", "embedding": "svd" if bottleneck else "copy"}
    frequency = torch.ones(source[0].model.config.vocab_size)
    size = StudentConfig(bottleneck=bottleneck, layers=layers, recurrence=recurrence)
    return build_student(source, size, InitConfig(**(chosen | init)), frequency, 32), source


@pytest.mark.parametrize(
    ("rule", "depth", "stored", "expected"),
    [
        ("stride", 12, 6, [1, 3, 5, 7, 9, 11]),
        ("first", 12, 6, [0, 1, 2, 3, 4, 5]),
        ("last", 12, 6, [6, 7, 8, 9, 10, 11]),
        ("ends", 12, 6, [0, 2, 4, 7, 9, 11]),
        ("stride", 12, 3, [3, 7, 11]),
        ("last", 12, 3, [9, 10, 11]),
        ("ends", 12, 3, [0, 6, 11]),
        ("ends", 6, 1, [5]),
    ],
)
def test_layer_maps(rule: str, depth: int, stored: int, expected: list[int]) -> None:
    assert layer_map(rule, depth, stored) == expected
    assert executed_layer_map(rule, depth, stored, 1) == [layer + 1 for layer in expected]


@pytest.mark.parametrize(
    ("depth", "stored", "recurrence", "expected"),
    [
        (12, 3, 2, [2, 4, 6, 8, 10, 12]),
        (4, 2, 2, [1, 2, 3, 4]),
        (6, 2, 2, [2, 3, 5, 6]),  # 1.5 and 4.5 are rounded up
        (4, 3, 3, [1, 1, 1, 2, 2, 3, 3, 4, 4]),  # 0.44 is the first layer, not the embedding
    ],
)
def test_layers_that_repeated_ones_imitate(
    depth: int, stored: int, recurrence: int, expected: list[int]
) -> None:
    assert executed_layer_map("first", depth, stored, recurrence) == expected


@pytest.mark.parametrize("recurrence", [1, 2, 4])
def test_parameter_count_by_formula(recurrence: int) -> None:
    # V=100, d=16, f=64, P=32, T=1, e=4, 2 layers: 1,024 + 2 * 3,280
    config = BertConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        type_vocab_size=1,
    )
    model = BertModel(config, add_pooling_layer=False)
    assert sum(p.numel() for p in model.parameters()) == 2160 + 2 * 3280
    model.set_input_embeddings(BottleneckEmbedding(100, 4, 16, 0))
    set_layers(model, list(layers(model)), recurrence)
    assert sum(p.numel() for p in model.parameters()) == 7584


def test_full_size_copy_equals_the_source(encoder_folder: Path) -> None:
    copied, source = student(encoder_folder, None, 4, 1)
    assert torch.equal(
        copied.encode(TEXTS, convert_to_tensor=True), source.encode(TEXTS, convert_to_tensor=True)
    )
    pointers = {p.data_ptr() for p in source.parameters()}
    assert not pointers & {p.data_ptr() for p in copied.parameters()}


def test_recurrence_equals_the_unrolled_stack(encoder_folder: Path) -> None:
    recurrent, _ = student(encoder_folder, None, 2, 2)
    unrolled = copy.deepcopy(recurrent)
    stored = list(layers(unrolled[0].model))[:2]
    set_layers(unrolled[0].model, [copy.deepcopy(x) for x in stored + stored], 1)
    swapped = copy.deepcopy(recurrent)
    a, b = list(layers(swapped[0].model))[:2]
    set_layers(swapped[0].model, [a, a, b, b], 1)
    features = recurrent.preprocess(TEXTS)
    outputs = [m(dict(features))["sentence_embedding"] for m in (recurrent, unrolled, swapped)]
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-4)
    outputs[0].sum().backward()
    outputs[1].sum().backward()
    shared = layers(recurrent[0].model)[0].output.dense.weight.grad
    copies = [layers(unrolled[0].model)[i].output.dense.weight.grad for i in (0, 2)]
    assert torch.allclose(shared, sum(copies), atol=1e-5)


def test_bottleneck_has_the_stated_rank_and_no_bias() -> None:
    module = BottleneckEmbedding(50, 4, 16, 0)
    table = module.projection(module.table.weight)
    assert torch.linalg.matrix_rank(table) <= 4
    assert module.projection.bias is None
    assert module(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, 16)


def test_weighted_svd_is_the_best_approximation() -> None:
    torch.manual_seed(0)
    full, weight = torch.randn(60, 16), torch.randint(1, 1000, (60,))
    module = BottleneckEmbedding(60, 4, 16, 0)
    module.factorise(full, weight)
    scale = weight.sqrt()[:, None]
    error = ((full - module(torch.arange(60))) * scale).square().sum()
    values = torch.linalg.svdvals((full * scale).double())
    assert error.item() == pytest.approx(values[4:].square().sum().item(), rel=1e-3)


def test_the_word_table_fits_the_tokens_as_much_as_their_power_says(encoder_folder: Path) -> None:
    source = load_folder(encoder_folder)
    words = source[0].model.get_input_embeddings().weight
    frequency = torch.arange(len(words)) ** 2
    size = StudentConfig(bottleneck=3, layers=1, recurrence=1)

    def errors(power: float) -> torch.Tensor:
        init = InitConfig(source="teacher", layers="first", embedding="svd", frequency_power=power)
        small = build_student(source, size, init, frequency, 32)
        table = small[0].model.get_input_embeddings()
        return (words - table(torch.arange(len(words)))).square().sum(1)

    powers = (0.0, 0.5, 1.0)
    found = torch.stack([errors(power) for power in powers]).double()
    weights = torch.stack([(frequency + 0.1) ** power for power in powers]).double()
    assert (found @ weights.T).argmin(dim=0).tolist() == [0, 1, 2]


def test_save_and_load_are_bit_equal(encoder_folder: Path, tmp_path: Path) -> None:
    small, _ = student(encoder_folder, 4, 2, 3)
    save_folder(small, tmp_path / "student")
    again = load_folder(tmp_path / "student")
    assert torch.equal(
        small.encode(TEXTS, convert_to_tensor=True), again.encode(TEXTS, convert_to_tensor=True)
    )
    names = load_file(tmp_path / "student" / "model.safetensors")
    assert sum(t.numel() for t in names.values()) == sum(p.numel() for p in small.parameters())


def test_padding_does_not_change_vectors(encoder_folder: Path) -> None:
    small, _ = student(encoder_folder, 4, 2, 2)
    alone = small.encode(TEXTS[:1], convert_to_tensor=True)
    together = small.encode(TEXTS, convert_to_tensor=True)[:1]
    assert torch.allclose(alone, together, atol=1e-5)


def test_all_but_the_word_table_is_copied(encoder_folder: Path) -> None:
    source = load_folder(encoder_folder)
    torch.manual_seed(0)
    for parameter in backbone_of(source).parameters():  # else each LayerNorm is the identity
        torch.nn.init.normal_(parameter)
    source = narrowed(source, stored_tokens(source, TEXTS), 5)
    old = backbone_of(source)
    frequency = torch.arange(old.config.vocab_size) % 3  # so few that what is added matters
    for bottleneck, positions, types in ((None, 32, 2), (3, 12, 1)):
        init = InitConfig(
            source="teacher",
            layers="ends",
            embedding="svd" if bottleneck else "copy",
            frequency_power=0.5,
        )
        size = StudentConfig(
            bottleneck=bottleneck,
            layers=2,
            recurrence=1,
            intermediate=5,
            cut_positions=bottleneck is not None,
        )
        new = backbone_of(build_student(source, size, init, frequency, 12))
        wanted = {n: p for n, p in old.embeddings.named_parameters() if "word" not in n}
        for name, rows in (("position", positions), ("token_type", types)):
            wanted[f"{name}_embeddings.weight"] = wanted[f"{name}_embeddings.weight"][:rows]
        for copied, place in zip(layers(new), (0, 3), strict=True):
            theirs = layers(old)[place].state_dict()
            assert all(torch.equal(x, theirs[name]) for name, x in copied.state_dict().items())
        for name, parameter in wanted.items():
            assert torch.equal(new.embeddings.get_parameter(name), parameter), name
        assert (new.config.max_position_embeddings, new.config.type_vocab_size) == (
            positions,
            types,
        )
        assert new.config.intermediate_size == 5 and new.pooler is None
    table = BottleneckEmbedding(len(frequency), 3, 16, 0)
    table.factorise(old.get_input_embeddings().weight, (frequency.double() + 0.1) ** 0.5)
    assert torch.equal(new.get_input_embeddings().whole(), table.whole())


@pytest.mark.parametrize("kind", [{}, {"bottleneck": 8}, {"codes": 4}], ids=str)
def test_random_tables_are_those_of_the_framework(
    encoder_folder: Path, kind: dict[str, int]
) -> None:
    """Normal numbers; an encoder that is trained from scratch would have smaller ones."""
    source = load_folder(encoder_folder)
    frequency = torch.ones(backbone_of(source).config.vocab_size)
    init = InitConfig(source="scratch", layers="first", embedding="random")
    shape = {"bottleneck": None, "layers": 1, "recurrence": 1, "intermediate": 5}
    size = StudentConfig.model_validate(shape | kind)
    new = backbone_of(build_student(source, size, init, frequency, 32))
    assert layers(new)[0].intermediate.dense.out_features == 5
    parts = new.embeddings
    words = next(parts.word_embeddings.parameters())  # of the table, or centroids
    for weight in (words, parts.position_embeddings.weight):
        assert 0.85 < weight.std().item() < 1.15


def test_codes_are_fitted_with_the_tokens_that_count_and_the_seed(
    encoder_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, seen = load_folder(encoder_folder), []
    words = backbone_of(source).get_input_embeddings().weight
    frequency = torch.arange(len(words))
    init = InitConfig(source="teacher", layers="first", embedding="kmeans", frequency_power=0.5)
    size = StudentConfig(bottleneck=None, codes=4, layers=1, recurrence=1)
    model = build_student(source, size, init, frequency, 32)
    assert torch.equal(backbone_of(model).get_input_embeddings().whole(), words)
    assert backbone_of(model).config.type_vocab_size == 1
    monkeypatch.setattr("mlkd.student.initialise.fit_codes", lambda *given: seen.append(given[2:]))
    for seed in ((), (3,)):
        build_student(source, size, init, frequency, 32, *seed)
    assert [seed for _, seed in seen] == [0, 3]
    torch.testing.assert_close(seen[0][0], (frequency.double() + 0.1).sqrt())


def test_an_architecture_that_is_not_known_is_refused() -> None:
    backbone = SimpleNamespace(config=SimpleNamespace(model_type="electra"))
    with pytest.raises(UserError, match="model type electra is not supported"):
        check_student(backbone, StudentConfig(bottleneck=None, layers=1, recurrence=1), 8)


def test_scratch_copies_nothing(encoder_folder: Path) -> None:
    fresh, source = student(encoder_folder, 4, 2, 1, source="scratch", embedding="random")
    theirs = layers(source[0].model)[0].output.dense.weight
    assert not torch.equal(layers(fresh[0].model)[0].output.dense.weight, theirs)


@pytest.mark.parametrize(("bottleneck", "depth"), [(16, 2), (4, 5)])
def test_impossible_sizes_are_refused(encoder_folder: Path, bottleneck: int, depth: int) -> None:
    with pytest.raises(UserError, match="allowed: 1 to"):
        student(encoder_folder, bottleneck, depth, 1)


def test_more_neurons_than_there_are_are_refused(encoder_folder: Path) -> None:
    size = StudentConfig(bottleneck=4, layers=2, recurrence=1, intermediate=65)
    with pytest.raises(UserError, match="allowed: 1 to 64"):
        check_student(backbone_of(load_folder(encoder_folder)), size, 32)


@pytest.mark.parametrize(("bottleneck", "embedding"), [(4, "svd"), (None, "copy")])
def test_a_student_can_be_the_source(
    encoder_folder: Path, tmp_path: Path, bottleneck: int | None, embedding: str
) -> None:
    save_folder(student(encoder_folder, 4, 2, 2)[0], tmp_path / "student")
    again, source = student(tmp_path / "student", bottleneck, 4, 1, embedding=embedding)
    vectors = (model.encode(TEXTS, convert_to_tensor=True) for model in (again, source))
    assert torch.allclose(*vectors, atol=1e-4)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_encoders_stored_in_half_precision_are_opened_in_fp32(
    encoder_folder: Path, tmp_path: Path, stored: torch.dtype
) -> None:
    half = SentenceTransformer(str(encoder_folder), device="cpu").to(stored)
    half.save(str(tmp_path / "half"))
    saved = load_file(tmp_path / "half" / "model.safetensors")
    assert {x.dtype for x in saved.values() if x.is_floating_point()} == {stored}
    model = load_folder(tmp_path / "half")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert backbone_of(model).config.dtype == torch.float32


def test_foreign_modules_and_pickles_are_refused(encoder_folder: Path, tmp_path: Path) -> None:
    import json
    import shutil

    bad = tmp_path / "bad"
    shutil.copytree(encoder_folder, bad)
    entries = json.loads((bad / "modules.json").read_text())
    (bad / "modules.json").write_text(json.dumps([entries[0] | {"type": "os.system"}]))
    with pytest.raises(UserError, match=r"os\.system is refused"):
        load_folder(bad)
    router = entries[0] | {"type": "sentence_transformers.base.modules.router.Router"}
    (bad / "modules.json").write_text(json.dumps([router]))
    shutil.copytree(encoder_folder, bad / "query")
    with pytest.raises(UserError, match=r"holds several encoders; give one of them: .*bad/query$"):
        load_folder(bad)
    shutil.rmtree(bad / "query")
    (bad / "modules.json").write_text(json.dumps(entries))
    (bad / "model.safetensors").rename(bad / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        load_folder(bad)


def test_mean_pool_ignores_padding() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    assert mean_pool(hidden, torch.tensor([[1, 1, 0]])).item() == 2.0
