"""The look of all figures: settings, colours, ticks, notes and files."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import matplotlib.style
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from pretraining.runtime import cli
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import read_yaml, write_atomically
from pretraining.study.titles import PAPER_SOURCES, SourceStyle, order_sources

TEXT_WIDTH = 6.75  # inches, both columns of a journal's page
COLUMN_WIDTH = 3.35
GREY = "#777777"
# Okabe and Ito's colours, safe for colour-blind readers; black is kept for direct training.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8F8F8F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HOLLOW = {"markerfacecolor": "none", "markeredgewidth": 0.8}
WHITE_EDGE = {"markeredgecolor": "white", "markeredgewidth": 0.4}
# Leading digits of ticks, the roundest first.
ROUND_DIGITS = ((1,), (2, 5), (1.5, 3, 7), (1.2, 4, 6, 8), (1.1, 1.3, 1.4, 1.6, 1.8, 2.5, 3.5, 9))
RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "mathtext.fontset": "dejavusans",
    "text.color": "#000000",
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 6.7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.width": 0.5,
    "ytick.minor.width": 0.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 1.6,
    "ytick.minor.size": 1.6,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "figure.dpi": 150,
    "savefig.dpi": 300,
}
# What no style changes: the layout has room for notes, and files do not depend on the time.
FIXED = {
    "figure.autolayout": False,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "svg.hashsalt": "pretraining",
}
# `figures` of the study's configuration: width (inches) and style (of matplotlib).
LOOK: dict[str, Any] = {}
NOTE = "note"


class Parser(cli.Parser):
    """Arguments of a program that draws: ``--styles`` is a file with titles, colours and look."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        text = "titles, kinds and colours of the sources, and the look of figures (YAML)"
        self.add_argument("--styles", type=Path, help=text)

    def parse_args(self, *arguments: Any) -> Namespace:
        args = super().parse_args(*arguments)
        LOOK.clear()
        LOOK.update(read_yaml(args.styles).get("figures", {}) if args.styles else {})
        return args


def ink() -> str:
    """The colour of text, and of direct training."""
    with _settings():
        return to_hex(matplotlib.rcParams["text.color"])


def source_looks(
    sources: Iterable[str], styles: Mapping[str, SourceStyle] | None = None
) -> dict[str, dict]:
    """Keywords of ``Axes.plot`` for each label source: colour, marker and line style."""
    styles = PAPER_SOURCES if styles is None else styles
    order = [source for source in order_sources(sources, styles) if source != "none"]
    own = {s: styles.get(s, SourceStyle(s)) for s in order}
    with _settings():
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key().get("color", CYCLE)
    colours = [c for c in cycle if c not in {style.colour for style in own.values()}] or list(cycle)
    markers = [m for m in MARKERS if m not in {s.marker for s in own.values()}] or list(MARKERS)
    looks = {"none": {"color": ink(), "marker": "o", "linestyle": "-"}}
    free = 0
    for source, style in own.items():
        looks[source] = {
            "color": style.colour or colours[free % len(colours)],
            "marker": style.marker or markers[free % len(markers)],
            "linestyle": (0, (4, 1.6)) if style.kind == "empirical" else "-",
        }
        free += style.colour is None or style.marker is None
    return looks


def shades(values: Sequence[float]) -> dict[float, str]:
    """A colour for each value, evenly spaced: pale and warm for the smallest, dark for the largest.

    The palest end of the colour map is left out: all are readable on white.
    """
    return _spaced(matplotlib.colormaps["plasma"], values, 0.88, 0.12, alone=0.5)


def ramp(colour: str, values: Sequence[float]) -> dict[float, str]:
    """A shade of one colour for each value: pale for the smallest, dark for the largest."""
    middle = np.array(to_rgb(colour))
    ends = [to_hex(0.38 * middle + 0.62), colour, to_hex(0.4 * middle)]
    return _spaced(LinearSegmentedColormap.from_list("ramp", ends), values, 0.0, 1.0, alone=0.6)


def _spaced(
    scale: Colormap, values: Sequence[float], first: float, last: float, alone: float
) -> dict[float, str]:
    """Colours of a scale at even places from first to last; a single value is at `alone`."""
    ordered = sorted(set(values))
    places = np.linspace(first, last, len(ordered)) if len(ordered) != 1 else [alone]
    return {value: to_hex(scale(place)) for value, place in zip(ordered, places, strict=True)}


def plain(value: float) -> str:
    """A tick label without powers of ten; commas from 10,000 on."""
    return f"{value:,.0f}" if value >= 10_000 else f"{value:g}"


def size_ticks(axis: Axis, sizes: Sequence[int], at_most: int = 9) -> None:
    """Label a logarithmic axis at the given sizes."""
    sizes = sorted(set(sizes))
    step = -(-len(sizes) // at_most) if sizes else 1
    axis.set_major_locator(FixedLocator(sizes[::step]))
    axis.set_minor_locator(FixedLocator([]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def round_values(low: float, high: float, at_most: int = 8) -> list[float]:
    """Round numbers between `low` and `high`, well apart on a logarithmic axis, for ticks.

    Examples
    --------
    >>> round_values(45, 200)
    [50.0, 70.0, 100.0, 150.0, 200.0]
    """
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    apart = np.log(high / low) / at_most
    ticks: list[float] = []
    # Odd digits only if there are few ticks otherwise.
    tries = [(digits, at_most - 3) for digits in ROUND_DIGITS]
    tries += [(np.arange(100, 1000, step) / 100, 3) for step in (10, 5, 1)]
    for digits, enough in tries:
        if len(ticks) >= enough:
            break
        for value in (float(f"{10.0**d * digit:.6g}") for digit in digits for d in decades):
            near = any(abs(np.log(value / tick)) < apart for tick in ticks)
            if low <= value <= high and not near:
                ticks.append(value)
    return sorted(ticks)


def value_ticks(axis: Axis, low: float, high: float, at_most: int = 8) -> None:
    """Label a logarithmic axis with round numbers, also within a decade."""
    ticks = round_values(low, high, at_most)
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    minor = np.outer(decades, range(1, 10)).ravel()
    # All labels have the decimals of the longest.
    places = max((len(f"{tick:.10g}".partition(".")[2]) for tick in ticks), default=0)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(FixedLocator(minor[(low <= minor) & (minor <= high)]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.{places}f}"))
    axis.set_minor_formatter(NullFormatter())


def note_below(figure: Figure, text: str) -> None:
    """Write small text below all panels and reserve space for it."""
    look = {"fontsize": 6.2, "alpha": 0.65, "va": "bottom", "linespacing": 1.35, "gid": NOTE}
    _reserve(figure, figure.text(0.012, 0, text, **look))


def _reserve(figure: Figure, note: Text) -> None:
    """Break the lines of a note at the figure's width and reserve space for them."""
    width, height = figure.get_size_inches()
    lines = [fill(line, int(21 * width)) for line in note.get_text().split("\n")]
    note.set_text("\n".join(lines))
    space = (0.125 * (note.get_text().count("\n") + 1) + 0.04) / height
    figure.get_layout_engine().set(rect=(0, space, 1, 1 - space), w_pad=0.08, h_pad=0.04)
    note.set_position((0.012, 0.04 / height))


def no_results(axes: Axes) -> None:
    """Say in a panel that its runs have no results."""
    axes.text(0.5, 0.5, "no results yet", transform=axes.transAxes, ha="center", color=GREY)


@contextmanager
def _settings() -> Iterator[None]:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        matplotlib.style.use(LOOK.get("style", {}))
        matplotlib.rcParams.update(FIXED)
        yield


@contextmanager
def house_style() -> Iterator[None]:
    """Draw with the project's and the study's settings, regardless of the user's matplotlibrc."""
    with _settings():
        try:
            yield
        finally:
            plt.close("all")


def _take_dollars_literally(figure: Figure) -> None:
    """Draw text between dollar signs as it is if it is no formula: titles are free text."""
    parser = MathTextParser("path")
    for text in figure.findobj(Text):
        try:
            # Drawn line by line; the parser has no sign for the end of one.
            for line in text.get_text().split("\n"):
                parser.parse(line)
        except ValueError:
            text.set_parse_math(False)


def _keep_layout(figure: Figure) -> None:
    """Keep the layout, rounded: its solver's last digits depend on addresses in memory."""
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(6))
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 6))


def save(figure: Figure, *paths: str | Path) -> None:
    """Write a figure, atomically, in the formats of the paths.

    The same figure gives the same bytes. Raises a `UserError` if the format is not one of pdf, png
    and svg.
    """
    # Without times and versions of programs in the file.
    stable = {
        ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        ".png": {"Software": None},
        ".svg": {"Date": None, "Creator": None},
    }
    wrong = [str(path) for path in map(Path, paths) if path.suffix not in stable]
    if wrong:
        raise UserError(f"{wrong[0]}: figures are written as {', '.join(stable)}")
    with house_style():
        figure.set_size_inches(
            figure.get_size_inches() * LOOK.get("width", TEXT_WIDTH) / TEXT_WIDTH
        )
        for note in figure.findobj(lambda artist: artist.get_gid() == NOTE):
            _reserve(figure, note)
        _take_dollars_literally(figure)
        # The same layout for all formats.
        figure.draw_without_rendering()
        _keep_layout(figure)
        for path in map(Path, paths):
            options = {"format": path.suffix[1:], "metadata": stable[path.suffix]}
            write_atomically(path, partial(figure.savefig, **options))
