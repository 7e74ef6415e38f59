"""What the chain is compared with: made from the same assistant, data and budget."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command

from mlkd.baselines import main
from mlkd.bench.baselines import _layer_cut, mse_recipe
from mlkd.config.bench import BaselinesConfig
from mlkd.config.schema import TrainConfig
from mlkd.config.stages.sentence import SentenceSettings
from mlkd.encoders.backbone import backbone_of, layers
from mlkd.encoders.folder import load_folder
from mlkd.recipes.chain import open_chain
from mlkd.recipes.recipe import links
from mlkd.student.static import static_encoder


@pytest.mark.slow
def test_every_rival_is_measured_on_the_same_sets(
    tiny: Callable[..., TrainConfig], encoder_folder: Path, tmp_path: Path
) -> None:
    config = tiny(
        *("stages.bottleneck.batch_size=32", "stages.contrastive.max_steps=3"),
        *("student.intermediate=8", "student.trim={min_share: 2e-2}", "student.recurrence=2"),
    )
    output = tmp_path / "baselines.json"
    main(BaselinesConfig.model_validate(config.model_dump() | {"output": str(output)}))
    written = json.loads(output.read_text())
    models = written["models"]
    assert list(models) == [
        *("teacher", "assistant", "bottleneck", "recurrent", "contrastive"),
        *("mse recipe", "start", "layer cut", "static", "assistant int8", "student int8"),
        *("assistant q4", "student q4", "assistant pq"),
    ]
    pairs = {name: [*values["scores"]["sets"]] for name, values in models.items()}
    assert len({str(found) for found in pairs.values()}) == 1
    size = {name: values["parameters"]["total"] for name, values in models.items()}
    assert size["mse recipe"] == size["start"] == size["contrastive"]
    assert size["contrastive"] < size["layer cut"] < size["assistant"] == size["assistant int8"]
    assert size["contrastive"] == size["student int8"] == size["student q4"]
    assert models["assistant q4"]["mib"] < models["assistant int8"]["mib"]
    assert size["assistant pq"] < size["assistant q4"]
    blocks = {name: values["parameters"] for name, values in models.items()}
    assert blocks["layer cut"]["embedding"] == blocks["assistant"]["embedding"]
    depth = len(layers(backbone_of(load_folder(encoder_folder))))
    assert blocks["layer cut"]["encoder"] * depth == blocks["assistant"]["encoder"] * 2
    for kind in ("int8", "q4"):
        assert {models[f"{whose} {kind}"]["precision"] for whose in ("assistant", "student")} == {
            kind
        }
    assert models["assistant pq"]["precision"] == "q4"
    records = [json.loads(path.read_text()) for path in (tmp_path / "out/runs").glob("*/run.json")]
    steps = {record["link"]: record["training"]["steps"] for record in records}
    # 6 steps of 32 pairs, 6 of 16 and 3 of 16 make 21 of 16.
    assert (steps["contrastive"], steps["mse"]) == (3, 21)
    with output.with_suffix(".csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["model"] for line in lines] == list(models)
    for line, values in zip(lines, models.values(), strict=True):
        assert float(line["dev_sts"]) == values["scores"]["mean"]["dev"]["sts"]
        assert line["seed"] == "0" and line["hardware"]
    assert "mse recipe" in output.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stage=assistant", "leaves no trained student"),
        ("eval.precision=auto", "scored in fp32"),
        ("trainer.devices=2", "allowed here: 1"),
        ("output=scores.csv", ".csv and .md go beside it"),
        ("budget_mib=5", "budget_mib: mlkd.train searches; give the student that it finds"),
        ("data=tsv data.root=nowhere", "data.corpora.pairs: no nowhere/pairs.en-de.tsv.gz"),
    ],
)
def test_an_unfair_contest_is_refused(setting: str, message: str, command: Command) -> None:
    done = command("mlkd.baselines", *setting.split())
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    "words", [(), ("student.bottleneck=null", "student.codes=4", "init.embedding=kmeans")], ids=str
)
def test_a_layer_cut_has_whole_words_and_runs_its_layers_once(
    words: tuple[str, ...], tiny: Callable[..., TrainConfig]
) -> None:
    config = tiny("student.recurrence=3", "assistant.train=false", *words)
    cut = _layer_cut(open_chain(config))
    backbone = backbone_of(cut)
    assert len(layers(backbone)) == config.student.layers  # and not three times as many
    assert isinstance(backbone.get_input_embeddings(), torch.nn.Embedding)


def test_the_recipe_is_one_stage_of_mse_alone(tiny: Callable[..., TrainConfig]) -> None:
    config = tiny()
    recipe = mse_recipe(config, pairs=1000)
    assert [link.name for link in links(recipe)] == ["assistant", "mse"]
    assert recipe.stages["assistant"] == config.stages["assistant"]  # one run serves both
    link = recipe.stages["mse"]
    assert isinstance(link, SentenceSettings)
    assert link.loss.mcl is None and link.loss.pair_mse is not None
    assert link.max_steps == 1000 // link.batch_size
    assert mse_recipe(config, pairs=1).stages["mse"].max_steps == 1
    assert link.lr == config.stages["recurrent"].lr
    assert (recipe.student, recipe.init, recipe.seed) == (config.student, config.init, config.seed)


@torch.inference_mode()
def test_a_static_vector_is_the_weighted_mean_of_its_pieces(encoder_folder: Path) -> None:
    source = load_folder(encoder_folder)
    tokenizer = source.tokenizer
    words = [w for w in tokenizer.get_vocab() if w.isalpha() and len(w) > 2][:2]
    assert len(words) == 2
    a, b = (tokenizer.convert_tokens_to_ids(word) for word in words)
    frequency = torch.ones(len(tokenizer), dtype=torch.int64)
    frequency[b] = 5000
    width = source.get_embedding_dimension()
    static = static_encoder(source, frequency, width)

    # By hand: vectors of one-word sentences, centred, times a / (a + p), summed, to length one.
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = torch.tensor([[first, piece, last] for piece in range(len(tokenizer))])
    alone = source({"input_ids": ids, "attention_mask": torch.ones_like(ids)})["sentence_embedding"]
    ordinary = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
    alone -= alone[ordinary].mean(dim=0)
    share = frequency / frequency[ordinary].sum()
    expected = torch.stack([alone[i] * 1e-4 / (1e-4 + share[i]) for i in (a, b)])
    both = expected.sum(0)
    found = torch.from_numpy(np.stack(static.encode([words[0], words[1], " ".join(words)])))
    wanted = torch.nn.functional.normalize(torch.stack([*expected, both]), dim=1)
    # Full width: the components are a rotation, so that cosines stay.
    torch.testing.assert_close(found @ found.T, wanted @ wanted.T, atol=1e-5, rtol=0)


def test_a_narrow_static_table_keeps_the_main_directions(encoder_folder: Path) -> None:
    source = load_folder(encoder_folder)
    frequency = torch.ones(len(source.tokenizer), dtype=torch.int64)
    narrow = static_encoder(source, frequency, 8)
    wide = static_encoder(source, frequency, source.get_embedding_dimension())
    table, whole = (model[0].embedding.weight.detach() for model in (narrow, wide))
    assert table.shape == (len(frequency), 8)
    spread = torch.linalg.svdvals(whole.double())[:8]
    torch.testing.assert_close(torch.linalg.svdvals(table.double()), spread, rtol=1e-2, atol=1e-6)
