"""What the token states of an encoder keep in fewer directions, beside layers that are left out.

``python tests/student/width.py <encoder> <corpora>`` measures the dev STS of an encoder whose
states are projected, after each layer, onto their best directions (per-layer SVD, not centred, of
one random token of each sentence; Ansell et al., 2023): what a student of that width could copy.
Beside it are students of as many parameters that keep the width, before their training.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

import mlkd
from mlkd.config.student import InitConfig, StudentConfig
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.encoders.folder import load_folder
from mlkd.metrics.scoring import score, select_value
from mlkd.metrics.sets import load_sets
from mlkd.metrics.size import parameters
from mlkd.student.initialise import build_student

WIDTHS = (384, 320, 256, 192)
SAMPLE = 2048


def states_of(model: SentenceTransformer, texts: list[str]) -> list[Tensor]:
    """A random token's state of each text ``(N, d)``: of the embeddings, then of every layer."""
    generator = torch.Generator().manual_seed(0)
    found: list[list[Tensor]] = []
    for start in range(0, len(texts), 64):
        batch = model.tokenize(texts[start : start + 64])
        with torch.no_grad():
            states = backbone_of(model)(**batch, output_hidden_states=True).hidden_states
        token = torch.multinomial(batch["attention_mask"].float(), 1, generator=generator)[:, 0]
        found.append([state[torch.arange(len(token)), token] for state in states])
    return [torch.cat(column) for column in zip(*found, strict=True)]


@contextmanager
def projected(model: SentenceTransformer, onto: list[Tensor]) -> Iterator[None]:
    """Every state in the span of the columns ``(d, r)`` of its matrix."""
    backbone = backbone_of(model)
    places = [backbone.embeddings, *layers(backbone)]
    hooks = [
        at.register_forward_hook(_through(basis)) for at, basis in zip(places, onto, strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _through(basis: Tensor):  # type: ignore[no-untyped-def]
    def hook(module: nn.Module, inputs: object, output: object) -> object:
        if isinstance(output, Tensor):
            return output @ basis @ basis.T
        assert isinstance(output, tuple)
        return (output[0] @ basis @ basis.T, *output[1:])

    return hook


def narrow_parameters(model: SentenceTransformer, width: int) -> float:
    """Millions of the encoder at this width, whose feed-forward parts are four times as wide."""
    backbone = backbone_of(model)
    rows = sum(
        x.weight.shape[0] for x in backbone.embeddings.modules() if isinstance(x, nn.Embedding)
    )
    depth = len(layers(backbone))
    return (rows * width + 2 * width + depth * (12 * width**2 + 13 * width)) / 1e6


def main(encoder: Path, corpora: str) -> None:
    """Print the table."""
    config = mlkd.configure(
        "experiment=five_languages", f"data.root={corpora}", "eval.max_pairs=500"
    )
    sets = [item for item in load_sets(config.eval) if item.split == "dev" and item.kind == "sts"]
    model = load_folder(encoder)
    model.max_seq_length = 64

    def dev(encoder: SentenceTransformer) -> float:
        return select_value(score(lambda texts: encoder.encode(list(texts)), sets, bootstrap=0))

    texts = sorted({text for item in sets for text in (*item.left, *item.right)})
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))[:SAMPLE]
    states = states_of(model, [texts[n] for n in order])
    bases, energies = [], []
    for state in states:
        _, values, directions = torch.linalg.svd(state, full_matrices=False)
        bases.append(directions.T)
        energies.append(values.square().cumsum(0) / values.square().sum())
    print("| width | par. M | least share of a state | dev STS |\n|:--|--:|--:|--:|")  # noqa: T201
    for width in WIDTHS:
        with projected(model, [basis[:, :width] for basis in bases]):
            found = dev(model)
        least = min(energy[width - 1] for energy in energies)
        size = narrow_parameters(model, width)
        print(f"| {width} | {size:.2f} | {least:.3f} | {found:.2f} |", flush=True)  # noqa: T201
    print("\n| layers, bottleneck | par. M | dev STS |\n|:--|--:|--:|")  # noqa: T201
    even = torch.ones(len(model.tokenizer))
    init = InitConfig(source="teacher", layers="stride", embedding="svd")
    for number, bottleneck in ((6, 256), (4, 256), (4, 128), (3, 128)):
        size = StudentConfig(layers=number, bottleneck=bottleneck, recurrence=1)
        student = build_student(model, size, init, even, 64)
        total = parameters(student)["total"] / 1e6
        print(f"| {number}, {bottleneck} | {total:.2f} | {dev(student):.2f} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
