"""How a student starts: which weights of which source it copies.

Wibowo et al. (2024, arXiv 2406.16524) find that this choice matters more than the distillation
loss, so it is a configuration group of its own (``init``).
"""

from __future__ import annotations

import copy

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers import AutoModel

from mlkd.config.backbone import check_size
from mlkd.config.student import InitConfig, StudentConfig
from mlkd.encoders.backbone import (
    Backbone,
    backbone_of,
    check_supported,
    first_position,
    layers,
    longest_input,
    set_layers,
)
from mlkd.encoders.bottleneck import BottleneckEmbedding
from mlkd.encoders.coded import CodedEmbedding
from mlkd.encoders.compact import CompactTransformer
from mlkd.encoders.words import whole_table
from mlkd.output.errors import UserError
from mlkd.student.codes import fit_codes


def layer_map(rule: str, teacher_layers: int, student_layers: int) -> list[int]:
    """Teacher layer (0-based) that each stored student layer copies.

    Args:
        rule: ``first``: i; ``stride``: every (L/K)-th, ending with the last (Wibowo et al., 2024);
            ``last``: the top K; ``ends``: spread evenly from the first to the last, halves up.
        teacher_layers: L.
        student_layers: K, at most L.
    """
    total, stored = teacher_layers, student_layers
    if rule == "first":
        return list(range(stored))
    if rule == "stride":
        return [(i + 1) * total // stored - 1 for i in range(stored)]
    if rule == "last":
        return list(range(total - stored, total))
    if rule == "ends":
        if stored == 1:
            return [total - 1]
        # Integer arithmetic of floor(x + 1/2) with x = i (L - 1) / (K - 1).
        return [(2 * i * (total - 1) + stored - 1) // (2 * (stored - 1)) for i in range(stored)]
    raise ValueError(f"unknown layer map {rule}")


def executed_layer_map(
    rule: str, teacher_layers: int, student_layers: int, recurrence: int
) -> list[int]:
    """Teacher layer that each executed student layer imitates, both counted from 1.

    It is the layer that it copies. With recurrence, where a stored layer is executed in several
    places, layer n of N imitates layer n L / N, halves up, and never the embedding.

    Args:
        rule: See :func:`layer_map`; without a meaning where there is recurrence.
        teacher_layers: L.
        student_layers: K, stored; at most L without recurrence.
        recurrence: R, with N = K R.
    """
    if recurrence == 1:
        return [layer + 1 for layer in layer_map(rule, teacher_layers, student_layers)]
    total, executed = teacher_layers, student_layers * recurrence
    # Integer arithmetic of floor(x + 1/2) with x = n L / N.
    nearest = ((2 * n * total + executed) // (2 * executed) for n in range(1, executed + 1))
    return [max(1, layer) for layer in nearest]


def build_student(
    source: SentenceTransformer,
    size: StudentConfig,
    init: InitConfig,
    frequency: Tensor,
    max_tokens: int,
    seed: int = 0,
) -> SentenceTransformer:
    """Make a student by surgery on a copy of the source's backbone.

    The source is left as it is and shares no storage with the student. What follows the backbone
    in the source (pooling, normalisation) follows it in the student too.

    Args:
        source: The assistant before or after stage 1; it gives the architecture and the tokenizer
            even where ``init.source`` is ``scratch``. Layers that are copied have
            ``size.intermediate`` neurons already (see :func:`mlkd.student.narrow.narrowed`).
        size: Word table, stored layers and their neurons, recurrence.
        init: What is copied from the source.
        frequency: Count of each token in the text of the pairs ``(vocabulary,)``, for the word
            table.
        max_tokens: Longer inputs are cut.
        seed: Of the codes' k-means.

    Raises:
        UserError: The size does not fit the backbone.
    """
    old: Backbone = backbone_of(source)
    check_student(old, size, max_tokens)
    config = copy.deepcopy(old.config)
    config.num_hidden_layers = size.layers
    if size.intermediate is not None:
        config.intermediate_size = size.intermediate
    if size.cut_positions:
        config.max_position_embeddings = first_position(old) + max_tokens
    if size.bottleneck is not None or size.codes is not None:
        config.type_vocab_size = 1  # sentence encoders never use a second segment
    new: Backbone = AutoModel.from_config(config, add_pooling_layer=False)

    if init.source != "scratch":
        chosen = layer_map(init.layers, len(layers(old)), size.layers)
        for stored, index in zip(layers(new), chosen, strict=True):
            stored.load_state_dict(layers(old)[index].state_dict())
    # Tokens that never occur keep a little weight, so that they are approximated too.
    weight = (frequency.double() + 0.1) ** init.frequency_power
    _set_word_table(new, size)
    _initialise_embedding(old, new, init.embedding, weight, seed)
    set_layers(new, list(layers(new)), size.recurrence)

    encoder = CompactTransformer(
        new,
        source.tokenizer,
        bottleneck=size.bottleneck,
        codes=size.codes,
        recurrence=size.recurrence,
        max_seq_length=max_tokens,
    )
    tail = [copy.deepcopy(module) for module in list(source)[1:]]
    return SentenceTransformer(modules=[encoder, *tail], device="cpu").eval()


def check_student(backbone: Backbone, size: StudentConfig, max_tokens: int) -> None:
    """Refuse a student that the backbone cannot give.

    Raises:
        UserError: Too many layers or neurons, a bottleneck that is none, or too long inputs.
    """
    check_supported(backbone)
    config = backbone.config
    check_size(size, len(layers(backbone)), config.hidden_size, config.intermediate_size)
    if max_tokens > longest_input(backbone):
        raise UserError(
            f"data.max_tokens={max_tokens}: the assistant reads at most "
            f"{longest_input(backbone)} tokens"
        )


def _set_word_table(new: Backbone, size: StudentConfig) -> None:
    """Put a narrow or coded word table in the place of the full one."""
    rows, width = new.config.vocab_size, new.config.hidden_size
    if size.bottleneck is not None:
        padding_id = new.config.pad_token_id
        new.set_input_embeddings(BottleneckEmbedding(rows, size.bottleneck, width, padding_id))
    elif size.codes is not None:
        new.set_input_embeddings(CodedEmbedding(rows, size.codes, width))


@torch.no_grad()
def _initialise_embedding(
    old: Backbone, new: Backbone, how: str, weight: Tensor, seed: int
) -> None:
    """Fill the word, position and type tables and the LayerNorm of ``new``.

    ``random`` leaves framework defaults everywhere, as stage 2 of the paper does; the other ways
    copy all but the word table.
    """
    if how == "random":
        for module in new.embeddings.modules():
            if isinstance(module, nn.Embedding | nn.Linear | nn.LayerNorm | CodedEmbedding):
                module.reset_parameters()
        return
    old_parts, new_parts = old.embeddings, new.embeddings
    positions = new_parts.position_embeddings.weight
    positions.copy_(old_parts.position_embeddings.weight[: len(positions)])
    types = new_parts.token_type_embeddings.weight
    types.copy_(old_parts.token_type_embeddings.weight[: len(types)])
    new_parts.LayerNorm.load_state_dict(old_parts.LayerNorm.state_dict())
    words = whole_table(old)
    if how == "svd":
        new.get_input_embeddings().factorise(words, weight)
    elif how == "kmeans":
        fit_codes(new.get_input_embeddings(), words, weight, seed)
    else:
        new.get_input_embeddings().weight.copy_(words)
