"""Draw energy and coordination of generated structures against density."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pretraining.dynamics.summary import CLASSES, ENERGY
from pretraining.figures.style import COLUMN_WIDTH, CYCLE, MARKERS, TEXT_WIDTH, house_style, shades

# More anneal temperatures than these have a colour bar.
NAMED = 6


def structures_figure(table: pd.DataFrame) -> Figure:
    """Draw energy and coordination against density."""
    with house_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 0.75 * COLUMN_WIDTH))
        _energies(figure, left, table)
        _coordination(right, table)
        for axes in (left, right):
            axes.set_xlabel("density (g/cm³)")
            axes.grid(axis="y")
    return figure


def _energies(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    """A point per trajectory, coloured by its anneal temperature."""
    axes.set_ylabel("energy (eV/atom)")
    anneals = sorted(table["anneal_T"].dropna().unique())
    colours = shades(anneals)
    if not anneals:
        axes.plot(table["density"], table[ENERGY], "o", color=CYCLE[0])
    elif len(anneals) <= NAMED:
        for kelvin, part in table.groupby("anneal_T"):
            look = {"color": colours[kelvin], "label": f"{kelvin:,.0f} K"}
            axes.plot(part["density"], part[ENERGY], "o", alpha=0.9, **look)
        axes.legend(title="annealed at", handletextpad=0.2)
    else:
        points = axes.scatter(
            table["density"], table[ENERGY], c=table["anneal_T"], cmap="plasma_r", s=6, linewidths=0
        )
        bar = figure.colorbar(points, ax=axes, pad=0.02)
        bar.set_label("anneal temperature (K)")
        bar.outline.set_linewidth(0.7)


def _coordination(axes: Axes, table: pd.DataFrame) -> None:
    """Mean and standard deviation over the trajectories of a density."""
    groups = 100 * table.set_index("density")[list(CLASSES)]
    mean, spread = (getattr(groups.groupby("density"), name)() for name in ("mean", "std"))
    handles = []
    for name, colour, marker in zip(CLASSES, CYCLE, MARKERS, strict=False):
        look = {"color": colour, "marker": marker}
        # Bars end at 0 and 100 %.
        bars = [np.minimum(spread[name].fillna(0), room) for room in (mean[name], 100 - mean[name])]
        axes.errorbar(mean.index, mean[name], bars, elinewidth=0.7, clip_on=False, **look)
        handles.append(Line2D([], [], label=name, **look))
    axes.set(ylabel="atoms (%)", ylim=(0, 100))
    title = f"neighbours\nwithin {table['radius'].iloc[0]:g} Å"
    axes.legend(handles=handles, title=title, loc="center left", bbox_to_anchor=(1.0, 0.5))
