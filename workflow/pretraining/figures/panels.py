"""One panel of learning curves, and the legend and the note of all panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_lowercase
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from pretraining.figures.style import (
    GREY,
    HOLLOW,
    WHITE_EDGE,
    ink,
    no_results,
    note_below,
    plain,
    shades,
    size_ticks,
    source_looks,
    value_ticks,
)
from pretraining.results.runs_table import KEY, MEAN_SHIFTED, RMSE
from pretraining.results.seed_statistics import (
    FLAG_NOTE,
    cell_of,
    common_seeds,
    curve_points,
    describe_runs,
    marks_of,
    unconverged_note,
)
from pretraining.results.selection import Selected
from pretraining.study.titles import UNITS, order_sources, title_of

LABELS = {metric: f"{metric} RMSE ({unit})" for metric, unit in UNITS.items()}
SIZES_LABEL = "DFT-labelled structures"
DIRECT = ("none", 0)  # source and pre-training size of direct training
# Empirical sources are dashed as well: these dashes are longer, and thinner than any curve.
UNTUNED = (0, (7, 2.5))
OWN_ERROR = (0, (1, 1.4))
# A line further than this factor from all curves is outside the panel.
FAR = 8.0


@dataclass(frozen=True)
class Options:
    """Options of learning curves."""

    compare: str = "source"  # a curve for each source or for each npre
    aggregate: str = "best"  # of the seeds, or mean with the standard deviation as error bars
    metrics: Sequence[str] = ("energy", "force")  # a panel for each
    untuned: bool = False  # horizontal lines at the errors of the models before fine-tuning
    sources: bool = False  # horizontal lines at the errors of the label sources


@dataclass
class Extent:
    """The axis limits that panels share.

    Attributes
    ----------
    cap
        Values above it do not widen the axis; arrows at its end mark them.
    """

    cap: float = np.inf
    sizes: list[float] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    lines: list[tuple[Axes, float, str]] = field(default_factory=list)

    def add(self, curve: pd.DataFrame) -> None:
        """Include a curve, without the (long) error bars of flagged cells."""
        self.sizes += list(curve["n"])
        curve = curve[np.isfinite(curve["value"])]
        bars = curve[~curve["flagged"].astype(bool)]
        self.heights += [*curve["value"], *(bars["value"] + bars["std"]).dropna()]

    def apply(self, axes: Axes) -> None:
        """Set the limits and ticks of a panel."""
        if not self.heights:
            no_results(axes)
            axes.set(xticks=[], yticks=[])
            return
        heights = [height for height in self.heights if height <= self.cap] or self.heights
        low, high = min(heights), max(heights)
        most = min(FAR * high, self.cap)
        near = [h for _, h, _ in self.lines if low / FAR < h < most]
        low, high = min([low, *near]), max([high, *near])
        # At the nearest edge, the heights of lines outside the panel, the highest on top.
        outside = [(h, colour) for own, h, colour in self.lines if own is axes and h not in near]
        below = sorted({line for line in outside if line[0] < low})
        above = sorted(set(outside) - set(below), reverse=True)
        for arrow, lines in (("↓", below), ("↑", above)):
            for k, (height, colour) in enumerate(lines):
                _edge_label(axes, f"{arrow} {_short(height)}", k, lines is above, color=colour)
        margin = max((high / low) ** 0.06, 1.04)
        low, high = low / margin, high * margin
        axes.set(xscale="log", yscale="log", ylim=(low, high))
        axes.set_xlim(min(self.sizes) / 1.18, max(self.sizes) * 1.18)
        if len(heights) < len(self.heights):
            _arrows(axes, high, len(above))
        value_ticks(axes.yaxis, low, high)
        size_ticks(axes.xaxis, self.sizes)
        axes.grid(axis="y", which="major")


def _edge_label(axes: Axes, text: str, row: int, top: bool, **look: Any) -> None:
    """Write a line of text at the right end of the panel's lower or upper edge."""
    points = (2 + 8 * row) * (-1 if top else 1)
    place = {"xycoords": "axes fraction", "xytext": (0, points), "textcoords": "offset points"}
    look |= {"ha": "right", "va": "top" if top else "bottom", "fontsize": 6.2}
    axes.annotate(text, (0.98, int(top)), **place, **look)


def _short(value: float) -> str:
    return plain(float(f"{value:.2g}"))


def _arrows(axes: Axes, high: float, row: int) -> None:
    """Mark the points of curves above the panel, and say how high the highest one is."""
    most = 0.0
    for line in axes.get_lines():
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        beyond = y > high
        if line.get_marker() in (None, "None", "") or not beyond.any():
            continue
        how = {"marker": "^", "markersize": 3.5, "linestyle": "none", "zorder": 6}
        top = np.full(beyond.sum(), high)
        axes.plot(x[beyond], top, color=line.get_color(), clip_on=False, **how)
        most = max(most, *y[beyond])
    if most:
        _edge_label(axes, f"▲ up to {_short(most)}", row, True)


def comparable(selections: Sequence[Selected], options: Options) -> list[Selected]:
    """The selections; by pre-training size, with the seeds common to all sizes."""
    if options.compare != "npre":
        return list(selections)
    return [replace(selected, runs=common_seeds(selected.runs)) for selected in selections]


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
        size: {"color": colours.get(size, ink()), "marker": "o", "linestyle": "-"} for size in sizes
    }
    return looks, {size: f"{size:,}" if size else "none (direct)" for size in sizes}


def reference_values(selected: Selected, options: Options, metric: str) -> pd.DataFrame:
    """``kind``, ``source``, ``npre``, ``value`` and ``published`` of the horizontal lines.

    Energies are those after a mean shift, as published: neither a source nor a model that learned
    from its labels knows the target's zero.
    """
    frames = [selected.untuned] if options.untuned else []
    frames += [selected.sources] if options.sources else []
    rows = []
    for frame in frames:
        shifted = metric == "energy" and frame[MEAN_SHIFTED].notna().any()
        column = MEAN_SHIFTED if shifted else RMSE[metric]
        for key, group in frame.groupby(["kind", "source", "npre"]):
            rows.append((*key, getattr(cell_of(group, column), options.aggregate)))
    values = pd.DataFrame(rows, columns=["kind", "source", "npre", "value"])
    values = values[np.isfinite(values["value"].astype(float))].assign(published=False)
    if selected.published is None:
        return values
    known = selected.published[selected.published["metric"] == metric]
    known = known.merge(values[["kind", "source", "npre"]]).assign(published=True)
    return pd.concat([values, known[list(values.columns)]], ignore_index=True)


def draw_panel(
    axes: Axes,
    selected: Selected | None,
    options: Options,
    metric: str,
    looks: Mapping,
    extent: Extent,
    published: pd.DataFrame | None = None,
) -> None:
    """Draw the curves of one metric and add them to the extent, which the caller applies.

    Parameters
    ----------
    looks
        Look of each curve, in the order of the legend.
    published
        Points of :func:`.published.published_points`.
    """
    axes.set(ylabel=LABELS[metric], xlabel=SIZES_LABEL)
    points = None
    if selected is not None:
        points = curve_points(selected.runs, metric, options.aggregate)
    for order, (key, look) in enumerate(looks.items()):
        # Direct training, first in the legend, is drawn over the others.
        zorder = 4 if key in DIRECT else 3 + order / 100
        if points is not None:
            curve = points[points[options.compare] == key].sort_values("n")
            extent.add(curve)
            _curve(axes, curve[np.isfinite(curve["value"])], look, zorder)
        if published is not None:
            transform = selected.chosen.transform if selected is not None else None
            curve = published[published["metric"] == metric]
            curve = curve[curve["transform"].isin((transform or "none", "none"))]
            curve = curve[curve[options.compare] == key].sort_values("n")
            extent.add(curve)
            _open_symbols(axes, curve, look, joined=points is None, zorder=zorder)
    if selected is not None:
        _reference_lines(axes, reference_values(selected, options, metric), options, looks, extent)


def _reference_lines(
    axes: Axes, values: pd.DataFrame, options: Options, looks: Mapping, extent: Extent
) -> None:
    for row in values.to_dict("records"):
        look = looks.get(row[options.compare])
        if row["kind"] == "pretrain" and look is None:
            continue
        # By pre-training size a source has no colour.
        coloured = look and (row["kind"] == "pretrain" or options.compare == "source")
        colour = look["color"] if coloured else GREY
        if row["published"]:
            place = {"transform": axes.get_yaxis_transform(), "zorder": 5}
            axes.plot(0.98, row["value"], "o", color=colour, markersize=5, **place, **HOLLOW)
            continue
        style = UNTUNED if row["kind"] == "pretrain" else OWN_ERROR
        extent.lines.append((axes, row["value"], colour))
        axes.axhline(row["value"], color=colour, linestyle=style, linewidth=0.9, zorder=1.5)


def _curve(axes: Axes, curve: pd.DataFrame, look: Mapping, zorder: float) -> None:
    spread = curve["std"].fillna(0.0)
    # On a logarithmic axis a bar must end above zero.
    bars = [np.minimum(spread, 0.95 * curve["value"]), spread] if spread.any() else None
    how = {"elinewidth": 0.8, "capsize": 1.6, "zorder": zorder, **WHITE_EDGE, **look}
    axes.errorbar(curve["n"], curve["value"], yerr=bars, **how)
    _stars(axes, curve, look)


def _stars(axes: Axes, curve: pd.DataFrame, look: Mapping) -> None:
    for point in filter(marks_of, curve.itertuples()):
        place = {"xytext": (3, 1), "textcoords": "offset points", "zorder": 5}
        axes.annotate(marks_of(point), (point.n, point.value), color=look["color"], **place)


def _open_symbols(
    axes: Axes, curve: pd.DataFrame, look: Mapping, *, joined: bool, zorder: float
) -> None:
    """Published points, joined by a curve if nothing else is drawn."""
    how = HOLLOW | {"linewidth": 1.0, "elinewidth": 0.6, "capsize": 1.6, "markersize": 5.5}
    if joined:
        how["markerfacecolor"] = "white"
    else:
        zorder += 1
    bars = curve["std"] if curve["std"].notna().any() else None
    shape = look if joined else look | {"linestyle": "none"}
    axes.errorbar(curve["n"], curve["value"], bars, zorder=zorder, **how, **shape)
    if joined:
        _stars(axes, curve, look)


def handles_of(looks: Mapping, titles: Mapping, hollow: bool = False) -> list[Line2D]:
    """Legend entries of curves."""
    edge = HOLLOW if hollow else WHITE_EDGE
    return [Line2D([], [], label=titles[key], **looks[key], **edge) for key in looks]


def reference_handles(options: Options, selections: Sequence[Selected]) -> list[Line2D]:
    """Legend entries of horizontal lines."""
    handles, line = [], {"color": GREY, "linewidth": 0.9}
    if options.untuned and any(_finished(selected.untuned) for selected in selections):
        handles.append(Line2D([], [], linestyle=UNTUNED, label="pre-trained,\nnot tuned", **line))
    if options.sources and any(_finished(selected.sources) for selected in selections):
        handles.append(Line2D([], [], linestyle=OWN_ERROR, label="label source\nitself", **line))
    return handles


def published_handles(published: object) -> list[Line2D]:
    """Legend entry of open symbols, if there are published values."""
    if published is None:
        return []
    symbol = {"marker": "o", "markersize": 5.5, "color": GREY, "linestyle": "none"} | HOLLOW
    return [Line2D([], [], label="published,\nsame statistic", **symbol)]


def _finished(runs: pd.DataFrame) -> bool:
    return bool((runs["status"] != "missing").any())


def add_legend(
    figure: Figure, handles: Sequence, options: Options, title: str = "", beside: bool = True
) -> None:
    """Add the legend of all panels, beside or above them; a tuple of handles is one entry."""
    if options.compare == "npre":
        title = "Pre-training\nstructures"
    labels = [(h[0] if isinstance(h, tuple) else h).get_label() for h in handles]
    if not beside:
        title, labels = None, [label.replace("\n", " ") for label in labels]
    legend = figure.legend(
        handles,
        labels,
        title=title,
        loc="outside right center" if beside else "outside upper center",
        ncols=1 if beside else len(handles),
        alignment="left",
        handlelength=2.6,
        labelspacing=0.55,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.3)},
    )
    legend.get_title().set_fontweight("bold")


def add_note(
    figure: Figure,
    selections: Sequence[Selected],
    options: Options,
    first: str | None = None,
    last: str = "",
) -> None:
    """Describe the runs below the panels; `first` takes the place of the test set."""
    runs = [selected.runs for selected in selections]
    # Several transforms have the same direct training.
    drawn = pd.concat(runs).drop_duplicates([column for column in KEY if column in runs[0]])
    parts = describe_runs(selections, drawn, options.aggregate, options.metrics)
    text = " · ".join([first or parts[0], *parts[1:]]) + last
    points = (curve_points(r, m, options.aggregate) for r in runs for m in options.metrics)
    if any(part["flagged"].any() for part in points):
        text += f"\n{FLAG_NOTE}"
    trained = drawn[drawn["status"] != "missing"]
    if sign := unconverged_note(trained["unconverged"].sum(), len(trained)):
        text += f"\n{sign}"
    note_below(figure, text)


def letters_of(selections: Sequence[Selected], figure: str) -> list[str]:
    """The letters of the panels with curves, as in the paper: ``b`` of Fig. 4 is the map."""
    letters = list(ascii_lowercase[: len(selections)])
    if figure == "specialised":
        return ["a", *ascii_lowercase[2 : len(selections) + 1]]
    return letters if figure == "alchemical" else [""] * len(selections)
