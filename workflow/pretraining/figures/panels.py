"""One panel of learning curves: test errors of one metric against the number of structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pretraining.figures.style import DIRECT_COLOUR, shades, source_looks
from pretraining.figures.ticks import size_ticks, value_ticks
from pretraining.results.runs_table import RMSE
from pretraining.results.seed_statistics import cell_of
from pretraining.results.selection import Selected
from pretraining.study.titles import UNITS, order_sources, title_of

LABELS = {metric: f"{metric} RMSE ({unit})" for metric, unit in UNITS.items()}
SIZES_LABEL = "DFT-labelled structures"
# Empirical sources are dashed as well: these dashes are longer, and thinner than any curve.
UNTUNED = (0, (7, 2.5))
OWN_ERROR = (0, (1, 1.4))
GREY = "#777777"
# A line further than this factor from every curve is not given room.
FAR = 8.0
HOLLOW = {"markerfacecolor": "none", "markeredgewidth": 0.8}


@dataclass(frozen=True)
class Options:
    """How learning curves are drawn.

    Attributes
    ----------
    compare
        A curve for each ``source`` or for each ``npre``.
    aggregate
        ``best`` of the seeds, or ``mean`` with the sample standard deviation as error bars.
    metrics
        A panel for each.
    untuned, sources
        Horizontal lines at the errors of the pre-trained models as they are, and of the label
        sources themselves.
    """

    compare: str = "source"
    aggregate: str = "best"
    metrics: Sequence[str] = ("energy", "force")
    untuned: bool = False
    sources: bool = False


class Extent:
    """The axis limits that panels share."""

    def __init__(self) -> None:
        self.sizes: list[float] = []
        self.heights: list[float] = []
        self.lines: list[tuple[float, str]] = []

    def add(self, curve: pd.DataFrame) -> None:
        """Make room for a curve; the long error bars of marked cells may leave the panel."""
        self.sizes += list(curve["n"])
        curve = curve[np.isfinite(curve["value"])]
        bars = curve[~curve["flagged"].astype(bool)]
        self.heights += [*curve["value"], *(bars["value"] + bars["std"]).dropna()]

    def apply(self, axes: Axes) -> None:
        """Set the limits and ticks of a panel."""
        if not self.heights:
            axes.text(0.5, 0.5, "no results yet", transform=axes.transAxes, ha="center", color=GREY)
            axes.set(xticks=[], yticks=[])
            return
        low, high = min(self.heights), max(self.heights)
        # A line that is far from all curves would squeeze them; an arrow says where it is.
        near = [h for h, _ in self.lines if low / FAR < h < FAR * high]
        low, high = min([low, *near]), max([high, *near])
        for height, colour in self.lines:
            if height not in near:
                _arrow(axes, height, low, colour)
        margin = max((high / low) ** 0.06, 1.04)
        low, high = low / margin, high * margin
        axes.set(xscale="log", yscale="log", ylim=(low, high))
        axes.set_xlim(min(self.sizes) / 1.18, max(self.sizes) * 1.18)
        value_ticks(axes.yaxis, low, high)
        size_ticks(axes.xaxis, self.sizes)
        axes.grid(axis="y", which="major", color="0.92", linewidth=0.6)


def _arrow(axes: Axes, height: float, low: float, colour: str) -> None:
    """Give the height of a line that lies beyond the panel, at the edge next to it."""
    below = height < low
    axes.text(
        0.98,
        0.02 if below else 0.98,
        f"{'↓' if below else '↑'} {height:.2g}",
        transform=axes.transAxes,
        ha="right",
        va="bottom" if below else "top",
        color=colour,
        fontsize=6.2,
    )


def looks_of(frames: Sequence[pd.DataFrame], options: Options, styles) -> tuple[dict, dict]:
    """Look and title of each curve, in the order of the legend."""
    present = {key for frame in frames for key in frame[options.compare]}
    if options.compare == "source":
        order = order_sources(present, styles)
        looks = source_looks(order, styles)
        return {s: looks[s] for s in order}, {s: title_of(s, styles) for s in order}
    sizes = sorted(int(size) for size in present)
    colours = shades([size for size in sizes if size])
    looks = {
        size: {"color": colours.get(size, DIRECT_COLOUR), "marker": "o", "linestyle": "-"}
        for size in sizes
    }
    return looks, {size: f"{size:,}" if size else "none (direct)" for size in sizes}


def reference_values(selected: Selected, options: Options, metric: str) -> pd.DataFrame:
    """Errors that do not depend on n: of pre-trained models as they are, and of label sources.

    Returns
    -------
    pandas.DataFrame
        ``kind`` (``pretrain`` or ``source``), ``source``, ``npre`` and ``value``; those that are
        not asked for are left out.
    """
    rows = []
    wanted = [("pretrain", selected.untuned, options.untuned)]
    wanted.append(("source", selected.sources, options.sources))
    for kind, frame, shown in wanted:
        for (source, npre), group in frame.groupby(["source", "npre"]) if shown else ():
            value = getattr(cell_of(group, RMSE[metric]), options.aggregate)
            rows.append((kind, source, npre, value))
    values = pd.DataFrame(rows, columns=["kind", "source", "npre", "value"])
    return values[np.isfinite(values["value"].astype(float))]


def reference_lines(values: pd.DataFrame, compare: str, looks: Mapping) -> list[tuple]:
    """Height, colour and line style of each horizontal line."""
    lines = []
    for row in values.to_dict("records"):
        known = looks.get(row[compare])
        if row["kind"] == "pretrain" and known:
            lines.append((row["value"], known["color"], UNTUNED))
        elif row["kind"] == "source":
            # By pre-training size a source has no colour of its own.
            colour = known["color"] if known and compare == "source" else GREY
            lines.append((row["value"], colour, OWN_ERROR))
    return lines


def draw_panel(
    axes: Axes,
    points: pd.DataFrame | None,
    known: pd.DataFrame | None,
    lines: Sequence[tuple],
    looks: Mapping,
    compare: str,
    extent: Extent,
) -> None:
    """Draw the curves of one metric, and add what they need to the extent.

    Parameters
    ----------
    points, known
        Computed and published points, in the columns of
        :data:`pretraining.results.published.POINT_COLUMNS`.
    lines
        Height, colour and line style of horizontal lines.
    looks
        Look of each curve by the value of `compare`, in the order of the legend.
    """
    for order, (key, look) in enumerate(looks.items()):
        # Direct training, first in the legend, lies on top of the others.
        zorder = 4 if key in ("none", 0) else 3 + order / 100
        if points is not None:
            curve = points[points[compare] == key].sort_values("n")
            extent.add(curve)
            _curve(axes, curve[np.isfinite(curve["value"])], look, zorder)
        if known is not None:
            curve = known[known[compare] == key].sort_values("n")
            extent.add(curve)
            _open_symbols(axes, curve, look, joined=points is None, zorder=zorder)
    for height, colour, style in lines:
        extent.lines.append((height, colour))
        axes.axhline(height, color=colour, linestyle=style, linewidth=0.9, zorder=1.5)


def _curve(axes: Axes, curve: pd.DataFrame, look: Mapping, zorder: float) -> None:
    spread = curve["std"].fillna(0.0)
    # On a logarithmic axis a bar that reaches zero has no end.
    bars = [np.minimum(spread, 0.95 * curve["value"]), spread] if spread.any() else None
    axes.errorbar(
        curve["n"],
        curve["value"],
        yerr=bars,
        elinewidth=0.8,
        capsize=1.6,
        markeredgecolor="white",
        markeredgewidth=0.4,
        zorder=zorder,
        **look,
    )
    _stars(axes, curve, look)


def _stars(axes: Axes, curve: pd.DataFrame, look: Mapping) -> None:
    for _, point in curve[curve["flagged"].astype(bool)].iterrows():
        axes.annotate(
            "*",
            (point["n"], point["value"]),
            xytext=(3, 1),
            textcoords="offset points",
            color=look["color"],
            fontsize=9,
            zorder=5,
        )


def _open_symbols(
    axes: Axes, curve: pd.DataFrame, look: Mapping, *, joined: bool, zorder: float
) -> None:
    """Published points; of these only the means form a curve."""
    means = curve["std"].notna()
    for part, line in ((curve[means], joined), (curve[~means], False)):
        axes.errorbar(
            part["n"],
            part["value"],
            yerr=part["std"] if part["std"].notna().any() else None,
            color=look["color"],
            marker=look["marker"],
            linestyle=look["linestyle"] if line else "none",
            linewidth=1.0,
            elinewidth=0.6,
            capsize=1.6,
            markersize=5.5,
            markerfacecolor="white" if joined else "none",
            markeredgewidth=0.8,
            zorder=zorder + (0 if joined else 1),
        )
    if joined:
        _stars(axes, curve, look)


def handles_of(looks: Mapping, titles: Mapping, hollow: bool = False) -> list[Line2D]:
    """Legend entries of curves."""
    edge = HOLLOW if hollow else {"markeredgecolor": "white", "markeredgewidth": 0.4}
    return [Line2D([], [], label=titles[key], **looks[key], **edge) for key in looks]


def reference_handles(options: Options, selections: Sequence[Selected]) -> list[Line2D]:
    """Legend entries of horizontal lines."""
    handles, line = [], {"color": GREY, "linewidth": 0.9}
    if options.untuned and any(len(selected.untuned) for selected in selections):
        handles.append(Line2D([], [], linestyle=UNTUNED, label="pre-trained,\nnot tuned", **line))
    if options.sources and any(len(selected.sources) for selected in selections):
        handles.append(Line2D([], [], linestyle=OWN_ERROR, label="label source\nitself", **line))
    return handles


def note_below(figure: Figure, text: str) -> None:
    """Write small text below all panels, which make room for it."""
    space = (0.125 * (text.count("\n") + 1) + 0.04) / figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, space, 1, 1 - space), w_pad=0.08, h_pad=0.04)
    figure.text(
        0.012,
        0.04 / figure.get_figheight(),
        text,
        fontsize=6.2,
        color="0.35",
        va="bottom",
        linespacing=1.35,
    )
