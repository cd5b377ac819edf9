"""The look of figures that a study asks for: width, style, colours, and labels at their edges."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from pretraining.figures.panels import Extent
from pretraining.figures.style import LOOK, Parser, house_style, note_below, save, source_looks
from pretraining.study.titles import SourceStyle, read_styles, style_problems


@pytest.fixture(autouse=True)
def _own_look(monkeypatch):
    monkeypatch.setattr("pretraining.figures.style.LOOK", LOOK)
    yield
    LOOK.clear()


def ask_for(tmp_path: Path, look: str) -> Path:
    file = tmp_path / "styles.yaml"
    file.write_text(f"sources: {{a: {{title: A, colour: '#123456', marker: '*'}}}}\n{look}\n")
    Parser().parse_args(["--styles", str(file)])
    return file


def test_a_study_decides_width_style_and_colours(tmp_path):
    style = tmp_path / "own.mplstyle"
    style.write_text("text.color: 00ff00\naxes.prop_cycle: cycler('color', ['ff0000'])\n")
    file = ask_for(tmp_path, f"figures: {{width: 13.5, style: {style}}}")
    looks = source_looks(["none", "a", "b"], read_styles(file) | {"b": SourceStyle("B")})
    assert looks["a"]["color"] == "#123456" and looks["a"]["marker"] == "*"
    assert (looks["none"]["color"], looks["b"]["color"]) == ("#00ff00", "#ff0000")
    with house_style():
        figure, axes = plt.subplots(figsize=(3, 2))
        axes.set_title("a")
        note_below(figure, "word " * 30)
        assert plt.rcParams["text.color"] == "#00ff00"
    save(figure, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (1800, 1200)
    # The note is broken where the wider figure ends.
    assert {len(line) <= 126 for line in figure.texts[0].get_text().split("\n")} == {True}
    # Another program's figures have the house's look again.
    Parser().parse_args([])
    assert source_looks(["none"])["none"]["color"] == "#000000"


@pytest.mark.parametrize(
    ("style", "content", "said"),
    [
        ("gplot", None, "'gplot' is no file and no style of matplotlib, such as ggplot"),
        ("a.mplstyle", "font.sise: 3", "a.mplstyle: matplotlib has no setting 'font.sise'"),
        ("a.mplstyle", "font.size: big", "a.mplstyle: Key font.size: Could not convert 'big'"),
        ("a.mplstyle", "font.size: 9  # small", None),
        ("dark_background", None, None),
        (None, None, None),
    ],
)
def test_a_style_that_matplotlib_cannot_read_is_named(tmp_path, style, content, said):
    if content:
        (tmp_path / style).write_text(content)
    found = list(style_problems(tmp_path, style))
    assert (said in found[0]) if said else not found


@pytest.mark.parametrize("height", [0.9, 3.0])
def test_labels_of_lines_outside_do_not_overprint(height):
    with house_style():
        figure, axes = plt.subplots(figsize=(3, height))
        axes.plot([8, 16, 64], [3.0, 2.0, 900.0], "o-")
        extent = Extent(cap=100, sizes=[8, 16, 64], heights=[3.0, 2.0, 900.0])
        heights = (1e-4, 2e-4, 1e3, 12_345.6)
        extent.lines = [(axes, h, colour) for h in heights for colour in ("red", "blue")]
        extent.apply(axes)
        figure.draw_without_rendering()
        labels = [text for text in axes.texts if text.get_text()]
        boxes = [text.get_window_extent() for text in labels]
    assert [text.get_text() for text in labels][-2:] == ["↑ 1000", "▲ up to 900"]
    low = [box for box, text in zip(boxes, labels, strict=True) if "↓" in text.get_text()]
    high = [box for box in boxes if box not in low]
    for side in (low, high):
        assert len(side) >= 4
        for i, box in enumerate(side):
            assert not any(box.shrunk(1, 0.8).overlaps(other.shrunk(1, 0.8)) for other in side[:i])
