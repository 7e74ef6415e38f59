"""One forward with taps: values and gradients are those of transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModel

from mlkd.config.student import InitConfig, StudentConfig
from mlkd.encoders.backbone import Backbone, backbone_of, layers, set_dropout
from mlkd.encoders.folder import load_folder
from mlkd.encoders.forward import Encoded, Taps, encode
from mlkd.student.initialise import build_student

LENGTHS = [8, 1, 5, 3, 8, 2]
KINDS = pytest.mark.parametrize("kind", ["bert", "xlmr", "roberta"])
KERNELS = pytest.mark.parametrize("kernel", ["eager", "sdpa"])


@pytest.fixture
def model(request: pytest.FixtureRequest, encoder_folder: Path, kind: str) -> SentenceTransformer:
    """An encoder of 4 layers, 16 wide, in eval mode."""
    folder = encoder_folder if kind == "bert" else request.getfixturevalue(kind)
    return load_folder(folder)


def padded(backbone: Backbone) -> tuple[Tensor, Tensor]:
    """Six sentences of different lengths."""
    ids = torch.randint(7, 40, (6, 8), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(8) < torch.tensor(LENGTHS).unsqueeze(1)).long()
    ids[mask == 0] = backbone.config.pad_token_id
    return ids, mask


def everything(depth: int) -> Taps:
    return Taps(hidden=frozenset(range(depth + 1)), attention=frozenset(range(1, depth + 1)))


def reference(backbone: Backbone, ids: Tensor, mask: Tensor) -> Encoded:
    """The same from transformers, whose attentions are counted from 0."""
    backbone.set_attn_implementation("eager")
    positions = {}
    if backbone.config.model_type == "bert":
        positions["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
    output = backbone(
        input_ids=ids,
        attention_mask=mask,
        output_hidden_states=True,
        output_attentions=True,
        **positions,
    )
    real = mask.bool()
    states = output.last_hidden_state * mask.unsqueeze(-1)
    asked = real[:, None, :, None]
    return Encoded(
        states.sum(1) / mask.sum(1, keepdim=True),
        {n: state[real] for n, state in enumerate(output.hidden_states)},
        {n: shares * asked for n, shares in enumerate(output.attentions, start=1)},
    )


def weighed(encoded: Encoded) -> Tensor:
    """A scalar to which every number contributes with a random weight of its own."""
    draw = torch.Generator().manual_seed(3)
    parts = [encoded.sentence, *encoded.hidden.values(), *encoded.attention.values()]
    return torch.stack([(x * torch.randn(x.shape, generator=draw)).sum() for x in parts]).sum()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_same(found: Encoded, wanted: Encoded) -> None:
    assert torch.allclose(found.sentence, wanted.sentence, rtol=0, atol=1e-5)
    for ours, theirs in ((found.hidden, wanted.hidden), (found.attention, wanted.attention)):
        assert ours.keys() == theirs.keys()
        for layer, value in theirs.items():
            assert ours[layer].shape == value.shape
            assert torch.allclose(ours[layer], value, rtol=0, atol=1e-5), layer


@KERNELS
@KINDS
def test_values_and_gradients_are_those_of_transformers(
    model: SentenceTransformer, kernel: str
) -> None:
    backbone = backbone_of(model)
    ids, mask = padded(backbone)
    wanted = reference(backbone, ids, mask)
    weighed(wanted).backward()
    expected = gradients(model)
    backbone.set_attn_implementation(kernel)
    found = encode(model, ids, mask, everything(4))
    weighed(found).backward()
    assert found.hidden[4].shape == (sum(LENGTHS), 16)
    assert found.attention[1].shape == (6, 2, 8, 8)
    assert_same(found, wanted)
    # A query of a sentence reads that sentence and nothing else; one of padding reads nothing.
    for shares in found.attention.values():
        assert torch.allclose(shares.sum(3), mask[:, None].float().expand(6, 2, 8), atol=1e-6)
        assert not shares[(mask == 0)[:, None, None].expand_as(shares)].any()
    ours = gradients(model)
    assert ours.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().clamp_min(1.0)
        assert torch.allclose(ours[name] / scale, gradient / scale, rtol=0, atol=1e-5), name


@KERNELS
@KINDS
def test_sentence_vectors_are_those_of_the_model(model: SentenceTransformer, kernel: str) -> None:
    backbone = backbone_of(model)
    backbone.set_attn_implementation(kernel)
    ids, mask = padded(backbone)
    found = encode(model, ids, mask)
    wanted = model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
    assert torch.allclose(found.sentence, wanted, rtol=0, atol=1e-5)
    assert found.hidden == found.attention == {}
    assert backbone.config._attn_implementation == kernel


@KERNELS
@KINDS
def test_layers_that_are_run_again_are_counted_on(
    model: SentenceTransformer, kernel: str, kind: str
) -> None:
    """A student of 2 layers run 3 times is an encoder of 6 layers with copied weights."""
    vocabulary = backbone_of(model).config.vocab_size
    init = InitConfig(source="teacher", layers="last", embedding="svd")
    size = StudentConfig(bottleneck=4, layers=2, recurrence=3)
    student = build_student(model, size, init, torch.ones(vocabulary), 32)
    set_dropout(student, 0.0)
    backbone = backbone_of(student)
    unrolled = AutoModel.from_config(backbone.config, add_pooling_layer=False).eval()
    unrolled.embeddings = backbone.embeddings
    for number, layer in enumerate(layers(unrolled)):
        layer.load_state_dict(layers(backbone)[number % 2].state_dict())
    ids, mask = padded(backbone)
    wanted = reference(unrolled, ids, mask)
    weighed(wanted).backward()
    expected = gradients(unrolled)
    backbone.set_attn_implementation(kernel)
    found = encode(student, ids, mask, everything(6))
    assert_same(found, wanted)
    weighed(found).backward()
    ours = gradients(backbone)
    for name, gradient in ours.items():
        parts = name.split(".")
        if parts[:2] == ["encoder", "layer"]:  # what is stored once learns from every pass
            copies = [[*parts[:2], str(int(parts[2]) + 2 * n), *parts[3:]] for n in range(3)]
            theirs = torch.stack([expected[".".join(copy)] for copy in copies]).sum(0)
        else:
            theirs = expected[name]
        assert torch.allclose(gradient, theirs, rtol=1e-4, atol=1e-4), name
    assert len([n for n in ours if n.startswith("encoder.layer.")]) == 2 * 16


class Calls(TorchFunctionMode):
    """How often each function of torch is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))

    def count(self, *names: str) -> list[int]:
        return [self.names.count(name) for name in names]


@pytest.mark.parametrize("kind", ["bert"])
@pytest.mark.parametrize(
    ("taps", "run", "by_single_steps"),
    [
        (Taps(), 4, 0),
        (Taps(hidden=frozenset({0, 2, 4})), 4, 0),
        (Taps(attention=frozenset({2})), 4, 1),
        (Taps(sentence=False, hidden=frozenset({0})), 0, 0),
        (Taps(sentence=False, hidden=frozenset({1}), attention=frozenset({2})), 2, 1),
        (Taps(sentence=False, hidden=frozenset({3}), attention=frozenset({2})), 3, 1),
        (Taps(sentence=False), 0, 0),
    ],
)
def test_what_is_not_asked_for_is_not_computed(
    model: SentenceTransformer, taps: Taps, run: int, by_single_steps: int
) -> None:
    ids, mask = padded(backbone_of(model))
    with Calls() as calls:
        found = encode(model, ids, mask, taps)
    fused = run - by_single_steps
    assert calls.count("scaled_dot_product_attention", "softmax", "gelu") == [
        *(fused, by_single_steps, run),
    ]
    assert found.hidden.keys() == taps.hidden
    assert found.attention.keys() == taps.attention
    if taps.sentence and not taps.attention:
        assert torch.equal(found.sentence, encode(model, ids, mask).sentence)
    if not taps.sentence:
        with pytest.raises(LookupError, match="not asked for"):
            _ = found.sentence


@KERNELS
@pytest.mark.parametrize("kind", ["bert"])
def test_attention_is_that_before_dropout(model: SentenceTransformer, kernel: str) -> None:
    backbone = backbone_of(model)
    backbone.set_attn_implementation(kernel)
    ids, mask = padded(backbone)
    taps = Taps(hidden=frozenset({1}), attention=frozenset({1}))
    still = encode(model, ids, mask, taps)
    set_dropout(model, 0.0)
    for layer in layers(backbone):
        layer.attention.self.dropout.p = 0.5
    model.train()
    moved = encode(model, ids, mask, taps)
    assert torch.equal(moved.attention[1], still.attention[1])
    assert not torch.allclose(moved.hidden[1], still.hidden[1], atol=1e-3)


@pytest.mark.parametrize("kind", ["bert"])
@pytest.mark.parametrize(
    "taps",
    [
        Taps(hidden=frozenset({5})),
        Taps(hidden=frozenset({-1})),
        Taps(attention=frozenset({5})),
        Taps(attention=frozenset({0})),
    ],
)
def test_a_layer_that_is_not_there_is_refused(model: SentenceTransformer, taps: Taps) -> None:
    ids, mask = padded(backbone_of(model))
    with pytest.raises(ValueError, match="layers 1 to 4"):
        encode(model, ids, mask, taps)


@pytest.mark.parametrize("kind", ["bert"])
def test_a_model_is_left_as_it_was_when_a_layer_fails(model: SentenceTransformer) -> None:
    backbone = backbone_of(model)
    ids, mask = padded(backbone)
    before = encode(model, ids, mask).sentence
    with pytest.raises(IndexError):
        encode(model, ids + 1000, mask)
    assert backbone.config._attn_implementation == "sdpa"
    assert torch.equal(encode(model, ids, mask).sentence, before)


@pytest.mark.parametrize("kind", ["bert"])
def test_what_hides_padding_is_made_once(model: SentenceTransformer) -> None:
    """Not once a layer."""

    class Counts(TorchFunctionMode):
        made = 0

        def __torch_function__(
            self, function: Any, kinds: Any, arguments: Any = (), keywords: Any = None
        ) -> Any:
            self.made += function is torch.where
            return function(*arguments, **(keywords or {}))

    ids, mask = padded(backbone_of(model))
    with Counts() as counts:
        found = encode(model, ids, mask, everything(4))
    assert len(found.attention) == 4
    assert counts.made == 1
