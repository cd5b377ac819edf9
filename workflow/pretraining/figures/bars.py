"""Bars at one number of DFT-labelled structures: mean and spread of the seeds, and each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pretraining.figures.panels import GREY, LABELS
from pretraining.figures.style import DIRECT_COLOUR
from pretraining.figures.ticks import plain
from pretraining.results.runs_table import RMSE
from pretraining.results.seed_statistics import cell_of
from pretraining.results.selection import Selected

DIRECT = ("none", 0)


def draw_bars(
    axes: Axes,
    selections: Sequence[Selected],
    looks: Sequence[Mapping],
    names: Mapping,
    n: int,
    metric: str,
    compare: str,
) -> None:
    """Draw direct training first, then a group of bars for each size (or source).

    Parameters
    ----------
    selections
        The runs, one comparison a transform: a bar of each is in every group.
    looks
        For each of them the look of every value of `compare`.
    names
        Label of each group, in their order.
    n
        Number of structures.
    """
    width = 0.8 / len(selections)
    top = [0.0]
    for place, key in enumerate(names):
        shown = selections[:1] if key in DIRECT else selections
        for k, (selected, look) in enumerate(zip(shown, looks, strict=False)):
            rows = selected.runs[(selected.runs["n"] == n) & (selected.runs[compare] == key)]
            offset = (k - (len(shown) - 1) / 2) * width
            top += _bar(axes, place + offset, 0.85 * width, rows, RMSE[metric], look[key]["color"])
    if max(top) > 0:
        axes.set_ylim(0, 1.06 * max(top))
    else:
        axes.text(0.5, 0.5, "no results yet", transform=axes.transAxes, ha="center", color=GREY)
    direct = [selected.runs[selected.runs[compare].isin(DIRECT)] for selected in selections[:1]]
    level = cell_of(direct[0][direct[0]["n"] == n], RMSE[metric]).mean
    if np.isfinite(level):
        axes.axhline(level, color=DIRECT_COLOUR, linewidth=0.6, linestyle=(0, (1, 1.5)), zorder=1)
    axes.set_xticks(range(len(names)), list(names.values()))
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylabel(LABELS[metric])


def _bar(
    axes: Axes, x: float, width: float, rows: pd.DataFrame, column: str, colour: str
) -> list[float]:
    """Draw one bar, and return the heights that the axis must reach."""
    cell = cell_of(rows, column)
    if not np.isfinite(cell.mean):
        return []
    values = np.sort(rows[column].dropna().to_numpy(dtype=float))
    axes.bar(x, cell.mean, width, color=colour, alpha=0.55, linewidth=0, zorder=2)
    if np.isfinite(cell.std):
        axes.errorbar(
            x, cell.mean, yerr=cell.std, color="0.15", elinewidth=0.8, capsize=2.0, zorder=3
        )
    # Side by side, so that equal values do not hide each other.
    spread = np.linspace(-0.28, 0.28, len(values)) if len(values) > 1 else np.zeros(1)
    axes.plot(
        x + width * spread,
        values,
        linestyle="none",
        marker="o",
        markersize=2.6,
        color=colour,
        markeredgecolor="white",
        markeredgewidth=0.3,
        zorder=4,
    )
    if cell.flagged:
        axes.annotate("*", (x, cell.mean), xytext=(4, 1), textcoords="offset points", fontsize=9)
        # A run that went wrong may leave the panel; its mark says so.
        return [float(np.median(values))]
    return [*values, cell.mean + (cell.std if np.isfinite(cell.std) else 0.0)]


def size_names(sizes: Sequence[int]) -> dict[int, str]:
    """Labels of the bars by pre-training size, direct training first."""
    return {size: plain(size) if size else "direct" for size in sorted(sizes)}
