"""Draw label sources beside the models that learned from them."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pretraining.figures.panels import GREY, HOLLOW, LABELS, note_below
from pretraining.figures.style import TEXT_WIDTH, house_style, source_looks
from pretraining.figures.ticks import value_ticks
from pretraining.results.runs_table import RMSE
from pretraining.study.titles import SourceStyle, title_of


def students_figure(
    table: pd.DataFrame,
    styles: Mapping[str, SourceStyle] | None = None,
    titles: Mapping[str, Mapping[str, str]] | None = None,
) -> Figure:
    """Draw the students' errors against their teachers', a row of panels a target.

    Parameters
    ----------
    table
        As :func:`students` returns it.
    titles
        Of the datasets.
    """
    looks = source_looks(table["source"].unique(), styles)
    targets = list(dict.fromkeys(table["target"]))
    with house_style():
        size = (TEXT_WIDTH, 2.7 * len(targets) + 0.35)
        figure, grid = plt.subplots(
            len(targets), 2, figsize=size, layout="constrained", squeeze=False
        )
        for row, target in enumerate(targets):
            for axes, metric in zip(grid[row], RMSE, strict=True):
                part = table[(table["target"] == target) & (table["metric"] == metric)]
                _panel(axes, part, looks)
                axes.set(xlabel=f"label source's {LABELS[metric]}", ylabel=LABELS[metric])
            title = (titles or {}).get("datasets", {}).get(target, target)
            grid[row, 0].set_title(f"tested on {title}", loc="left", pad=3)
            first = part.iloc[0]
            sizes = f"{first['npre']:,} synthetic, {first['n']:,} DFT structures"
            grid[row, 1].set_title(sizes, loc="left", pad=3)
        symbol = {"linestyle": "none", "color": GREY, "markersize": 5}
        handles = [
            Line2D([], [], label=title_of(s, styles), **looks[s] | {"linestyle": "none"})
            for s in looks
            if s in set(table["source"])
        ]
        for label, look in (("pre-trained,\nnot tuned", HOLLOW), ("fine-tuned", {})):
            handles.append(Line2D([], [], marker="o", label=label, **symbol, **look))
        figure.legend(handles=handles, loc="outside right center", labelspacing=0.55)
        note_below(
            figure,
            f"{table['aggregate'].iloc[0]} of the seeds · below the line the student is better "
            "than its teacher · energies of sources and of untuned models after a median shift",
        )
        # Laid out once, here, so that a later save does not move anything.
        figure.draw_without_rendering()
    return figure


def _panel(axes: Axes, part: pd.DataFrame, looks: Mapping[str, Mapping]) -> None:
    """One target and metric: an arrow's length is what fine-tuning gains."""
    values = part[["source_error", "pretrained", "finetuned"]].to_numpy(dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        axes.text(0.5, 0.5, "no results yet", transform=axes.transAxes, ha="center", color=GREY)
        return
    low, high = values.min(), values.max()
    margin = max((high / low) ** 0.1, 1.15)
    low, high = low / margin, high * margin
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        value_ticks(axis, low, high)
    axes.plot([low, high], [low, high], color="0.6", linewidth=0.6, zorder=1)
    for row in part.to_dict("records"):
        look = {key: looks[row["source"]][key] for key in ("color", "marker")}
        x = row["source_error"]
        axes.plot([x, x], [row["pretrained"], row["finetuned"]], color=look["color"], linewidth=0.7)
        symbol = {**look, "linestyle": "none", "markersize": 5, "zorder": 3}
        axes.plot(x, row["pretrained"], **symbol, **HOLLOW | {"markerfacecolor": "white"})
        axes.plot(x, row["finetuned"], **symbol)
