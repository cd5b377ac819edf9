"""Test errors over the numbers of pre-training and of DFT-labelled structures, as a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from pretraining.figures.learning_curves import panels_of
from pretraining.figures.panels import LABELS, SIZES_LABEL, Options, add_note, comparable
from pretraining.figures.style import house_style, no_results, plain
from pretraining.results.seed_statistics import curve_points, marks_of
from pretraining.results.selection import Selected
from pretraining.study.titles import SourceStyle


def loss_surface(
    selections: Sequence[Selected],
    options: Options,
    styles: Mapping[str, SourceStyle] | None = None,
    published: pd.DataFrame | None = None,
) -> Figure:
    """Draw a map for each metric, a row for each transform; direct training is the lowest row.

    Every cell has its error written in; below it, in brackets, the published one.
    """
    selections = comparable(selections, options)
    with house_style():
        figure, panels = panels_of(len(selections), len(options.metrics))
        for column, metric in enumerate(options.metrics):
            points = [curve_points(s.runs, metric, options.aggregate) for s in selections]
            values = pd.concat(points)["value"].dropna()
            norm = LogNorm(values.min(), values.max()) if len(values) else None
            for axes, selected, part in zip(panels[:, column], selections, points, strict=True):
                name = selected.chosen.transform or "none"
                title = [LABELS[metric], *([name] if len(selections) > 1 else [])]
                axes.set_title(", ".join(title), loc="left", pad=4)
                beside = None
                if published is not None:
                    beside = published[published["metric"] == metric]
                    beside = beside[beside["transform"].isin((name, "none"))]
                _draw(axes, part, beside, norm)
        note = " · in brackets: published, same statistic" if published is not None else ""
        add_note(figure, selections, options, last=note)
    return figure


def _draw(
    axes: Axes, points: pd.DataFrame, beside: pd.DataFrame | None, norm: LogNorm | None
) -> None:
    """Draw cells around the sizes, on logarithmic axes; 0 is one step below the other sizes."""
    axes.set(xlabel=SIZES_LABEL, ylabel="pre-training structures")
    if norm is None or not points["value"].notna().any():
        no_results(axes)
        return
    table = points.pivot_table(index="npre", columns="n", values="value")
    across, up = _places(table.columns), _places(table.index)
    cells = np.ma.masked_invalid(table)
    axes.pcolormesh(_edges(across), _edges(up), cells, norm=norm, cmap="viridis_r")
    known = {} if beside is None else beside.set_index(["npre", "n"])["value"].to_dict()
    for point in points.dropna(subset="value").itertuples():
        npre, n, value = point.npre, point.n, point.value
        text = _short(value) + marks_of(point)
        if (npre, n) in known:
            text += f"\n({_short(known[npre, n])})"
        place = across[table.columns.get_loc(n)], up[table.index.get_loc(npre)]
        look = {"color": "white" if norm(value) > 0.5 else "black", "fontsize": 5.5}
        axes.text(*place, text, ha="center", va="center", **look)
    axes.set_xticks(across, [plain(n) for n in table.columns])
    axes.set_yticks(up, [plain(npre) if npre else "none" for npre in table.index])
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _short(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _places(sizes: pd.Index) -> np.ndarray:
    """Return the logarithms of sizes; a first size of 0 is one mean step below the next."""
    places = np.log10(np.maximum(sizes.to_numpy(dtype=float), 1))
    if sizes[0] == 0 and len(sizes) > 1:
        places[0] = places[1] - (np.diff(places[1:]).mean() if len(sizes) > 2 else 0.5)
    return places


def _edges(places: np.ndarray) -> np.ndarray:
    """Return the edges of cells: halfway between neighbours, and as far outside."""
    if len(places) == 1:
        return places[0] + np.array([-0.25, 0.25])
    middle = (places[1:] + places[:-1]) / 2
    return np.concatenate([[2 * places[0] - middle[0]], middle, [2 * places[-1] - middle[-1]]])
