"""Ratios of layers and domains: what a run folder says of them, and the picture."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from mlkd.training.ratios import Ratios, picture, pixels, ratios_of

VALUES = np.array([[[0.5, 0.5], [0.4, 0.6]], [[0.1, 0.9], [0.3, 0.7]], [[0.2, 0.8], [0.6, 0.4]]])


def write_ratios(folder: Path, best: int | None = 8) -> Path:
    """Three validations of two states and two domains."""
    (folder / "domain_weights").mkdir(parents=True)
    lines = ["step,layer,domain,ratio"]
    for (v, layer, j), value in np.ndenumerate(VALUES):
        name = ("books", '"music, x"')[j]
        lines.append(f"{4 * v + 4},{layer},{name},{value}")
    (folder / "domain_weights/ratios.csv").write_text("\n".join(lines) + "\n")
    training = {} if best is None else {"training": {"best": {"step": best}}}
    (folder / "run.json").write_text(json.dumps({"link": "domains", **training}))
    return folder


def test_a_run_folder_has_them_by_step_state_and_domain(tmp_path: Path) -> None:
    found = ratios_of(write_ratios(tmp_path / "a"))
    assert found is not None
    assert (found.steps, found.domains, found.kept) == ((4, 8, 12), ("books", "music, x"), 1)
    assert found.states == ["embedding", "layer 1"]
    np.testing.assert_array_equal(found.values, VALUES)
    unfinished = ratios_of(write_ratios(tmp_path / "b", best=None))
    assert unfinished is not None and unfinished.kept == 2
    for training in (None, {"best": None}):
        (tmp_path / "b/run.json").write_text(json.dumps({"link": "x", "training": training}))
        assert ratios_of(tmp_path / "b") is not None
    assert ratios_of(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    ["", "step,layer,domain\n4,0,a\n", "\0", "cut", "step,layer,domain,ratio\n",
     "step,layer,domain,ratio\n8,0,a,nan\n"],
)  # fmt: skip
def test_damaged_ones_are_named_and_left_out(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_ratios(tmp_path) / "domain_weights/ratios.csv"
    path.write_text(content if content != "cut" else path.read_text()[:-20])
    with caplog.at_level(logging.WARNING):
        assert ratios_of(tmp_path) is None
    assert f"{path}: no ratios" in caplog.text


def test_the_picture_is_of_the_kept_weights_and_of_all_validations(tmp_path: Path) -> None:
    ratios = ratios_of(write_ratios(tmp_path))
    assert ratios is not None
    field, lines, _ = picture(ratios).axes
    (image,) = field.images
    np.testing.assert_array_equal(image.get_array(), VALUES[1])
    assert image.get_cmap().name == "cividis"
    assert [t.get_text() for t in field.texts] == ["0.10", "0.90", "0.30", "0.70"]
    assert field.get_title() == "step 8"
    books, music, even = lines.lines
    np.testing.assert_allclose(books.get_xydata(), [(4, 0.45), (8, 0.2), (12, 0.4)])
    np.testing.assert_allclose(music.get_ydata(), [0.55, 0.8, 0.6])
    assert list(even.get_ydata()) == [0.5, 0.5]
    drawn = pixels(ratios)
    assert drawn.dtype == np.uint8 and drawn.shape[2] == 4 and len(np.unique(drawn)) > 100


def test_a_hundred_domains_have_a_picture_without_words() -> None:
    values = np.full((2, 5, 100), 0.01)
    many = Ratios((1, 2), tuple(f"domain {n}" for n in range(100)), values, 1)
    field, lines, _ = picture(many).axes
    assert not field.texts and lines.get_legend() is None
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.lines[:28]}) == 28
