"""Learning curves: test errors against the number of DFT-labelled structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pretraining.errors import UserError
from pretraining.points import common_seeds, points_of, remarks
from pretraining.results import KEY, RMSE
from pretraining.selection import Selected
from pretraining.style import (
    COLUMN_WIDTH,
    DIRECT_COLOUR,
    TEXT_WIDTH,
    SourceStyle,
    house_style,
    order_sources,
    shades,
    source_looks,
    title_of,
)
from pretraining.table1 import FLAG_ABOVE, cell_of
from pretraining.ticks import size_ticks, value_ticks

LABELS = {"energy": "energy RMSE (meV/atom)", "force": "force RMSE (eV/Å)"}
# Empirical sources are dashed as well: these dashes are longer, and thinner than any curve.
UNTUNED = (0, (7, 2.5))
OWN_ERROR = (0, (1, 1.4))
GREY = "#777777"
PANEL_HEIGHT = 2.4


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


def learning_curves(
    selections: Sequence[Selected],
    options: Options,
    styles: Mapping[str, SourceStyle] | None = None,
    published: pd.DataFrame | None = None,
) -> Figure:
    """Draw learning curves on logarithmic axes.

    Parameters
    ----------
    selections
        The runs, one comparison a transform; none at all draws the published points alone.
    published
        Points in the columns of :data:`pretraining.published.POINT_COLUMNS`, drawn with open
        symbols.

    Raises
    ------
    UserError
        If there is nothing to draw.
    """
    if not selections and published is None:
        raise UserError("nothing to draw: give runs, published values or both")
    if published is not None and options.compare == "npre":
        source = selections[0].chosen.source if selections else "ace"
        published = published[published["source"].isin(["none", source])]
    runs = [selected.runs for selected in selections]
    if options.compare == "npre":
        runs = [common_seeds(part) for part in runs]
    metrics = [m for m in options.metrics if selections or (published["metric"] == m).any()]
    looks, titles = _looks([*runs, *([] if published is None else [published])], options, styles)
    with house_style():
        figure, panels = _panels(max(len(selections), 1), len(metrics))
        for column, metric in enumerate(metrics):
            extent = _Extent()
            known = None if published is None else published[published["metric"] == metric]
            for row, axes in enumerate(panels[:, column]):
                points = lines = None
                if selections:
                    points = points_of(runs[row], metric, options.aggregate)
                    lines = _reference_lines(selections[row], options, metric, looks)
                _panel(axes, points, known, lines or [], looks, options.compare, extent)
                if len(selections) > 1:
                    axes.set_title(selections[row].chosen.transform, loc="left", pad=3)
            for axes in panels[:, column]:
                axes.set(ylabel=LABELS[metric], xlabel="DFT-labelled structures")
                extent.apply(axes)
        _legend(figure, selections, options, looks, titles, published)
        _note(figure, selections, runs, options, published)
        # Laid out once, here, so that a later save does not move anything.
        figure.draw_without_rendering()
    return figure


class _Extent:
    """The axis limits that panels of one metric share."""

    def __init__(self) -> None:
        self.sizes: list[float] = []
        self.heights: list[float] = []

    def add(self, curve: pd.DataFrame) -> None:
        """Make room for a curve; the long error bars of marked cells may leave the panel."""
        self.sizes += list(curve["n"])
        curve = curve[np.isfinite(curve["value"])]
        bars = curve[~curve["flagged"].astype(bool)]
        self.heights += [*curve["value"], *(bars["value"] + bars["std"]).dropna()]

    def apply(self, axes: Axes) -> None:
        if not self.heights:
            axes.text(0.5, 0.5, "no results yet", transform=axes.transAxes, ha="center", color=GREY)
            axes.set(xticks=[], yticks=[])
            return
        low, high = min(self.heights), max(self.heights)
        margin = max((high / low) ** 0.06, 1.04)
        low, high = low / margin, high * margin
        axes.set(xscale="log", yscale="log", ylim=(low, high))
        axes.set_xlim(min(self.sizes) / 1.18, max(self.sizes) * 1.18)
        value_ticks(axes.yaxis, low, high)
        size_ticks(axes.xaxis, self.sizes)
        axes.grid(axis="y", which="major", color="0.92", linewidth=0.6)


def _panels(transforms: int, metrics: int) -> tuple[Figure, np.ndarray]:
    """A grid of axes, a row a transform and a column a metric; a single metric's lie in a row."""
    flat = metrics == 1
    shape = (1, transforms) if flat else (transforms, metrics)
    width = TEXT_WIDTH if max(shape) > 1 else 1.35 * COLUMN_WIDTH
    figure, panels = plt.subplots(
        *shape, figsize=(width, PANEL_HEIGHT * shape[0] + 0.35), layout="constrained", squeeze=False
    )
    return figure, panels.T if flat else panels


def _looks(frames: Sequence[pd.DataFrame], options: Options, styles) -> tuple[dict, dict]:
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


def _reference_lines(selected: Selected, options: Options, metric: str, looks: Mapping) -> list:
    """Height, colour and line style of each horizontal line."""
    column, lines = RMSE[metric], []
    if options.untuned:
        for key, group in selected.untuned.groupby(options.compare):
            if key in looks:
                height = getattr(cell_of(group, column), options.aggregate)
                lines.append((height, looks[key]["color"], UNTUNED))
    if options.sources:
        for source, group in selected.sources.groupby("source"):
            known = options.compare == "source" and source in looks
            colour = looks[source]["color"] if known else GREY
            lines.append((group[column].min(), colour, OWN_ERROR))
    return [line for line in lines if np.isfinite(line[0])]


def _panel(
    axes: Axes,
    points: pd.DataFrame | None,
    known: pd.DataFrame | None,
    lines: Sequence[tuple],
    looks: Mapping,
    compare: str,
    extent: _Extent,
) -> None:
    """One metric's curves."""
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
        extent.heights.append(height)
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


def _legend(figure, selections, options, looks, titles, published) -> None:
    """The curves, and what dashed lines and open symbols stand for, to the right of the panels."""
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
    hollow = {"markerfacecolor": "none", "markeredgewidth": 0.8}
    look = edge if selections else hollow
    handles = [Line2D([], [], label=titles[key], **looks[key], **look) for key in looks]
    line = {"color": GREY, "linewidth": 0.9}
    if options.untuned and any(len(selected.untuned) for selected in selections):
        handles.append(Line2D([], [], linestyle=UNTUNED, label="pre-trained,\nnot tuned", **line))
    if options.sources and any(len(selected.sources) for selected in selections):
        handles.append(Line2D([], [], linestyle=OWN_ERROR, label="label source\nitself", **line))
    if selections and published is not None:
        symbol = {"linestyle": "none", "marker": "o", "markersize": 5.5, "color": GREY} | hollow
        handles.append(Line2D([], [], label="published" + _spread(published, "\n"), **symbol))
    legend = figure.legend(
        handles=handles,
        title="Pre-training\nstructures" if options.compare == "npre" else "Label source",
        loc="outside right center",
        alignment="left",
        handlelength=2.6,
        labelspacing=0.55,
    )
    legend.get_title().set_fontweight("bold")


def _spread(published: pd.DataFrame, before: str) -> str:
    """What the bars of published points are: means have one, single values have none."""
    means = published["std"].notna()
    if not means.any():
        return ""
    return before + ("(mean ± s.d.)" if means.all() else "(bars: mean ± s.d.)")


def _note(figure, selections, runs, options, published) -> None:
    """A line below the panels: what is shown, and what is missing from it."""
    if selections:
        # Several transforms have the same direct training.
        key = [column for column in KEY if column in runs[0]]
        drawn = pd.concat(runs).drop_duplicates(key)
        text = " · ".join(remarks(selections, drawn, options.aggregate, options.metrics))
        points = [points_of(part, m, options.aggregate) for part in runs for m in options.metrics]
    else:
        text = "published values only" + _spread(published, " ")
        points = [published]
    if any(part["flagged"].any() for part in points):
        text += f"\n* a seed diverged or is above {FLAG_ABOVE} × the median of its cell"
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
