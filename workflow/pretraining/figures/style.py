"""The look that all figures share, and the names and colours of label sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_atomically
from pretraining.study.titles import PAPER_SOURCES, SourceStyle, order_sources

TEXT_WIDTH = 6.75  # inches, both columns of a journal's page
COLUMN_WIDTH = 3.35
DIRECT_COLOUR = "#000000"
# Okabe and Ito's colours, told apart by colour-blind readers; black is kept for direct training.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8F8F8F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "mathtext.fontset": "dejavusans",
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
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
    "pdf.fonttype": 42,
    "svg.hashsalt": "pretraining",
}


def source_looks(
    sources: Iterable[str], styles: Mapping[str, SourceStyle] | None = None
) -> dict[str, dict]:
    """Colour, marker and line style of each label source, as keywords of ``Axes.plot``."""
    styles = PAPER_SOURCES if styles is None else styles
    order = [source for source in order_sources(sources, styles) if source != "none"]
    own = {s: styles.get(s, SourceStyle(s)) for s in order}
    colours = [c for c in CYCLE if c not in {style.colour for style in own.values()}] or list(CYCLE)
    markers = [m for m in MARKERS if m not in {s.marker for s in own.values()}] or list(MARKERS)
    looks = {"none": {"color": DIRECT_COLOUR, "marker": "o", "linestyle": "-"}}
    free = 0
    for source, style in own.items():
        looks[source] = {
            "color": style.colour or colours[free % len(colours)],
            "marker": style.marker or markers[free % len(markers)],
            "linestyle": (0, (4, 1.6)) if style.kind == "empirical" else "-",
        }
        free += style.colour is None or style.marker is None
    return looks


def shades(values: Sequence[float], colormap: str = "plasma") -> dict[float, str]:
    """A colour for each value, evenly spaced: pale and warm for the smallest, dark for the largest.

    The colour map is perceptually even and its palest end is left out, so that every curve stays
    readable on white and in greyscale.
    """
    ordered = sorted(set(values))
    places = np.linspace(0.12, 0.88, len(ordered)) if len(ordered) != 1 else [0.5]
    ramp = matplotlib.colormaps[colormap]
    return {value: to_hex(ramp(1 - place)) for value, place in zip(ordered, places, strict=True)}


def ramp(colour: str, values: Sequence[float]) -> dict[float, str]:
    """A shade of one colour for each value: pale for the smallest, dark for the largest."""
    ordered = sorted(set(values))
    places = np.linspace(0.0, 1.0, len(ordered)) if len(ordered) != 1 else [0.6]
    ends = [_mixed(colour, "#FFFFFF", 0.62), colour, _mixed(colour, "#000000", 0.6)]
    scale = LinearSegmentedColormap.from_list("ramp", list(zip((0.0, 0.5, 1.0), ends, strict=True)))
    return {value: to_hex(scale(place)) for value, place in zip(ordered, places, strict=True)}


def _mixed(colour: str, other: str, share: float) -> str:
    """A colour with so much of another in it."""
    first, second = np.array(to_rgb(colour)), np.array(to_rgb(other))
    return to_hex((1 - share) * first + share * second)


@contextmanager
def house_style() -> Iterator[None]:
    """Draw with the project's settings, whatever the user's own matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        try:
            yield
        finally:
            plt.close("all")


def save(figure: Figure, *paths: str | Path) -> None:
    """Write a figure, atomically, in the formats of the paths.

    The same figure gives the same bytes.

    Raises
    ------
    UserError
        If the format is not one of pdf, png and svg.
    """
    # Times and versions in the file would change it without a change of the figure.
    stable = {
        ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        ".png": {"Software": None},
        ".svg": {"Date": None, "Creator": None},
    }
    for path in map(Path, paths):
        if path.suffix not in stable:
            raise UserError(f"{path}: figures are written as {', '.join(stable)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"format": path.suffix[1:], "metadata": stable[path.suffix]}
        with house_style():
            write_atomically(path, partial(figure.savefig, **options))
