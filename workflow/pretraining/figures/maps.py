"""Maps of atomic environments. Their axes have no meaning and are not drawn."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pretraining.figures.style import COLUMN_WIDTH, TEXT_WIDTH, house_style

LABELS = {
    "density": "density (g/cm³)",
    "coordination": "neighbours",
    "energy": "energy of the structure (eV/atom)",
}
GREY = "#C4C4C4"
# Default colours of several base samples, and of projected ones.
BASE_COLOURS = ("#5CBFB8", "#D98CC3", "#E8C66A", "#9DB7DD")
PROJECTED_COLOURS = ("#D7301F", "#111111", "#1F5FD6", "#E08A00", "#7B2FA8")
COLUMNS = ("sample", "role", "x", "y", "density", "coordination", "energy")
# Classes of coordination numbers.
CLASSES = ("≤ 1", "2", "3", "4", "≥ 5")
COLOURMAP = "viridis_r"


def colours_of(samples: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The colour of each sample: its own, grey for a single base, or a default."""
    base = [name for name, sample in samples.items() if sample["role"] == "base"]
    projected = [name for name in samples if name not in base]
    defaults = dict(zip(base, cycle((GREY,) if len(base) == 1 else BASE_COLOURS), strict=False))
    defaults |= zip(projected, cycle(PROJECTED_COLOURS), strict=False)
    return {name: samples[name].get("colour", colour) for name, colour in defaults.items()}


def draw_embedding(
    axes: Axes,
    table: pd.DataFrame,
    samples: Mapping[str, Mapping[str, Any]],
    colour_by: str = "set",
) -> None:
    """Draw a map (columns :data:`COLUMNS`) without its legend (:func:`legend_handles`).

    Parameters
    ----------
    samples
        By name, in the order of the legend: ``role``, ``title`` and, optionally, ``colour`` and
        ``shown``, the number of points drawn.
    colour_by
        Colour of the base: ``set``, ``density``, ``coordination`` or ``energy``.
    """
    colours = colours_of(samples)
    shown = pd.concat([_shown(table, name, sample) for name, sample in samples.items()])
    # In random order: no sample covers the others.
    base = shown[shown["role"] == "base"].sample(frac=1, random_state=0)
    size = _point_size(axes, len(base))
    look = {"s": size, "linewidths": 0, "rasterized": True}
    if colour_by == "set":
        axes.scatter(base["x"], base["y"], c=base["sample"].map(colours), alpha=0.6, **look)
    else:
        scale = _scale(base, colour_by)
        known = base[base[colour_by].notna()]
        axes.scatter(base["x"], base["y"], color=GREY, **look)
        axes.scatter(
            known["x"], known["y"], c=known[colour_by], cmap=scale.cmap, norm=scale.norm, **look
        )
        _colour_bar(axes, scale, colour_by)
    for name, points in shown[shown["role"] == "project"].groupby("sample", sort=False):
        look |= {"s": 2 * size, "edgecolors": "white", "linewidths": 0.15}
        axes.scatter(points["x"], points["y"], color=colours[name], **look)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_axis_off()


def legend_handles(
    samples: Mapping[str, Mapping[str, Any]], colour_by: str = "set"
) -> list[Line2D]:
    """Legend entries of the samples; beside a colour bar, only of the projected ones."""
    colours = colours_of(samples)
    return [
        Line2D([], [], linestyle="", marker="o", color=colours[name], label=sample["title"])
        for name, sample in samples.items()
        if colour_by == "set" or sample["role"] == "project"
    ]


def embedding_figure(table: pd.DataFrame, style: Mapping[str, Any]) -> Figure:
    """Draw a map once for each quantity of its colours.

    Parameters
    ----------
    style
        ``colour_by``, a list, and ``samples``, as for :func:`draw_embedding`.
    """
    panels, samples = style["colour_by"], style["samples"]
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    width = COLUMN_WIDTH if columns == 1 else TEXT_WIDTH
    # Panels have the shape of the map, within limits.
    extent = np.ptp(table[["x", "y"]].to_numpy(), axis=0)
    shape = float(np.clip(extent[1] / extent[0], 0.5, 1.1))
    height = shape * width / columns + (0.4 if set(panels) - {"set"} else 0)
    with house_style():
        figure, grid = plt.subplots(
            rows, columns, figsize=(width, rows * height + 0.25), squeeze=False
        )
        for axes, colour_by in zip(grid.flat, panels, strict=False):
            draw_embedding(axes, table, samples, colour_by)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        handles = legend_handles(samples, "set" if "set" in panels else panels[0])
        place = {"loc": "outside upper center", "ncols": min(len(handles), 2 * columns)}
        space = {"handletextpad": 0.2, "columnspacing": 1.2, "borderaxespad": 0.2}
        figure.legend(handles=handles, **place, **space)
    return figure


def _shown(table: pd.DataFrame, name: str, sample: Mapping[str, Any]) -> pd.DataFrame:
    points = table[table["sample"] == name]
    wanted = sample.get("shown", len(points))
    return points if wanted >= len(points) else points.sample(wanted, random_state=0)


def _point_size(axes: Axes, n: int) -> float:
    """Area of a point (points squared): all together fill about a third of the panel."""
    box = axes.get_position()
    width, height = 72 * axes.figure.get_size_inches()
    area = box.width * width * box.height * height
    return float(np.clip(0.35 * area / max(n, 1), 0.8, 5))


def _scale(base: pd.DataFrame, colour_by: str) -> ScalarMappable:
    """The colour scale of a quantity, from its 1st to its 99th percentile."""
    if colour_by == "coordination":
        shades = plt.get_cmap(COLOURMAP)(np.linspace(0.02, 0.98, len(CLASSES)))
        bounds = [-0.5, *np.arange(1.5, len(CLASSES)), 1e9]
        return ScalarMappable(BoundaryNorm(bounds, len(CLASSES)), ListedColormap(shades))
    values = base[colour_by].dropna()
    low, high = np.percentile(values, [1, 99]) if len(values) else (0.0, 1.0)
    return ScalarMappable(Normalize(low, high), COLOURMAP)


def _colour_bar(axes: Axes, scale: ScalarMappable, colour_by: str) -> None:
    # Inside the axes' frame: panels side by side keep the same size.
    place = axes.inset_axes((0.15, -0.07, 0.7, 0.03))
    bar = axes.figure.colorbar(scale, cax=place, orientation="horizontal", spacing="uniform")
    bar.set_label(LABELS[colour_by], labelpad=2)
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(length=2, pad=2)
    if colour_by == "coordination":
        bounds = scale.norm.boundaries
        bar.set_ticks((bounds[1:] + bounds[:-1]) / 2, labels=CLASSES)
        bar.ax.tick_params(length=0)
    bar.ax.minorticks_off()
