"""Figures of several panels: a specialised target (as Fig. 4), another element (as Fig. 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pretraining.figures.panels import (
    DIRECT,
    LABELS,
    SIZES_LABEL,
    Extent,
    Options,
    add_legend,
    add_note,
    comparable,
    draw_panel,
    handles_of,
    letters_of,
    looks_of,
    published_handles,
    reference_handles,
)
from pretraining.figures.style import (
    CYCLE,
    TEXT_WIDTH,
    house_style,
    ink,
    no_results,
    plain,
    ramp,
    value_ticks,
)
from pretraining.results.runs_table import RMSE
from pretraining.results.seed_statistics import cell_of, curve_points, marks_of
from pretraining.results.selection import Selected, nearest_size
from pretraining.study.titles import SourceStyle, Titles, printed, title_of

# Turquoise and magenta, as published; further transforms take the colours of the cycle.
TRANSFORM_COLOURS = ("#1BA3A3", "#C2378F", *CYCLE)
HEIGHT = 2.35
# End of the axis of alchemical curves, in units of the worst direct value. The published unscaled
# curve is three times as high.
CAP = 1.35
Draw = Callable[[Axes], None]


def specialised(
    selections: Sequence[Selected],
    options: Options,
    styles: Mapping[str, SourceStyle] | None = None,
    titles: Titles | None = None,
    embedding: Draw | None = None,
    published: pd.DataFrame | None = None,
) -> Figure:
    """Draw the errors of the same models on their target and on further test sets.

    Parameters
    ----------
    selections
        The same runs on each test set, the target's first.
    options
        Of one metric.
    embedding
        Draws the map, between the target's panel and the others.
    published
        Points of :func:`.published.published_points` on the target.
    """
    selections = comparable(selections, options)
    looks, names = looks_of([selected.runs for selected in selections], options, styles)
    tuned = [key for key in looks if key not in DIRECT]
    if options.compare == "source" and len(tuned) == 1:
        names = {"none": "direct", tuned[0]: f"fine-tuned\n({title_of(tuned[0], styles)})"}
    letters = letters_of(selections, "specialised")
    order = [letters[0], *(["b"] if embedding else []), *letters[1:]]
    with house_style():
        # Beside three panels there is no room for a legend.
        beside = embedding is None
        size = (TEXT_WIDTH, HEIGHT + (0.35 if beside else 0.6))
        figure = plt.figure(figsize=size)
        panels = figure.subplot_mosaic([order])
        for letter, selected in zip(letters, selections, strict=True):
            extent = Extent()
            known = published if selected is selections[0] else None
            draw_panel(panels[letter], selected, options, options.metrics[0], looks, extent, known)
            extent.apply(panels[letter])
            tested = printed(titles, "datasets", selected.chosen.target)
            _head(panels[letter], letter, f"tested on {tested}")
        if embedding:
            embedding(panels["b"])
            _head(panels["b"], "b")
        handles = [*handles_of(looks, names), *reference_handles(options, selections)]
        handles += published_handles(published)
        add_legend(figure, handles, options, beside=beside)
        trained = printed(titles, "datasets", selections[0].chosen.target)
        add_note(figure, selections, options, f"trained on {trained}")
    return figure


def alchemical(
    selections: Sequence[Selected],
    options: Options,
    styles: Mapping[str, SourceStyle] | None = None,
    titles: Titles | None = None,
    embedding: Draw | None = None,
    bars_at: int = 400,
    bars_of: str = "all",
    published: pd.DataFrame | None = None,
) -> Figure:
    """Draw a panel of learning curves for each transform, and bars at one number of structures.

    The axis of the curves ends at 1.35 times the worst direct value.

    Parameters
    ----------
    selections
        One comparison per transform.
    options
        Of one metric.
    embedding
        Draws the map, beside the bars.
    bars_at
        The bars are at the nearest number of structures with runs.
    bars_of
        ``all`` transforms, or only the ``last``, as published.
    published
        Points of :func:`.published.published_points`.
    """
    selections = comparable(selections, options)
    metric = options.metrics[0]
    looks, names = _looks_by_transform(selections, options, styles)
    letters = letters_of(selections, "alchemical")
    place, bars = (chr(ord(letters[-1]) + k) for k in (1, 2))
    columns = len(letters)
    below = [place] * columns + [bars] * columns if embedding else [bars] * (2 * columns)
    with house_style():
        size = (TEXT_WIDTH, 2 * HEIGHT + 0.35)
        figure = plt.figure(figsize=size)
        panels = figure.subplot_mosaic([[letter for letter in letters for _ in "ab"], below])
        extent = Extent(cap=CAP * _worst_direct(selections, options))
        for letter, selected, look in zip(letters, selections, looks, strict=True):
            draw_panel(panels[letter], selected, options, metric, look, extent, published)
            transform = selected.chosen.transform or "none"
            _head(panels[letter], letter, printed(titles, "transforms", transform))
        for letter in letters:
            extent.apply(panels[letter])
        n = nearest_size(selections, bars_at)
        groups = names
        if options.compare == "npre":
            groups = {size: plain(size) if size else "direct" for size in sorted(names)}
            panels[bars].set_xlabel("pre-training structures")
        shown = slice(-1, None) if bars_of == "last" else slice(None)
        draw_bars(panels[bars], selections[shown], looks[shown], groups, n, options)
        _head(panels[bars], bars, f"{n:,} {SIZES_LABEL}")
        if embedding:
            embedding(panels[place])
            _head(panels[place], place)
        handles = [
            tuple(handles_of({key: look[key]}, names)[0] for look in looks if key in look)
            for key in names
        ]
        # Direct training looks the same in all.
        handles[:1] = [handle[:1] for handle in handles[:1]]
        lines = [*reference_handles(options, selections), *published_handles(published)]
        handles += [(line,) for line in lines]
        add_legend(figure, handles, options)
        tested = f"tested on {printed(titles, 'datasets', selections[0].chosen.target)}"
        spread = "mean ± s.d. and " if options.aggregate == "best" else ""
        add_note(figure, selections, options, tested, f" ({bars}: {spread}every run)")
    return figure


def _worst_direct(selections: Sequence[Selected], options: Options) -> float:
    """Return the largest value of the curves of direct training; infinity without any."""
    runs = selections[0].runs
    direct = runs[runs[options.compare].isin(DIRECT)]
    points = curve_points(direct, options.metrics[0], options.aggregate)
    worst = points.loc[~points["flagged"].astype(bool), "value"].max()
    return float(worst) if np.isfinite(worst) else np.inf


def _looks_by_transform(
    selections: Sequence[Selected], options: Options, styles: Mapping[str, SourceStyle] | None
) -> tuple[list[dict], dict]:
    """Looks for each transform, by size in shades of its colour, and names in their order."""
    looks, names = looks_of([selected.runs for selected in selections], options, styles)
    if options.compare != "npre":
        return [looks] * len(selections), names
    sizes = [size for size in looks if size]
    shaded = []
    for _, colour in zip(selections, cycle(TRANSFORM_COLOURS), strict=False):
        colours = ramp(colour, sizes) | {0: ink()}
        shaded.append({size: look | {"color": colours[size]} for size, look in looks.items()})
    return shaded, names


def _head(axes: Axes, letter: str, text: str = "") -> None:
    axes.set_title(letter, loc="left", fontweight="bold", fontsize=9, pad=4)
    if text:
        place = {"xycoords": "axes fraction", "xytext": (11, 4.5), "textcoords": "offset points"}
        axes.annotate(text, (0, 1), **place, fontsize=7.5)


def draw_bars(
    axes: Axes,
    selections: Sequence[Selected],
    looks: Sequence[Mapping],
    names: Mapping,
    n: int,
    options: Options,
) -> None:
    """Draw bars at n structures: mean and spread of the seeds, and each run.

    Parameters
    ----------
    selections
        One comparison per transform: each has a bar in every group.
    looks
        For each of them the look of every value that is compared.
    names
        Label of each group, in their order, direct training first.
    """
    compare, column = options.compare, RMSE[options.metrics[0]]
    width = 0.8 / len(selections)
    heights: list[float] = []
    for place, key in enumerate(names):
        shown = selections[:1] if key in DIRECT else selections
        for k, (selected, look) in enumerate(zip(shown, looks, strict=False)):
            rows = selected.runs[(selected.runs["n"] == n) & (selected.runs[compare] == key)]
            offset = (k - (len(shown) - 1) / 2) * width
            heights += _bar(axes, place + offset, 0.85 * width, rows, column, look[key]["color"])
    if heights:
        low, high = min(heights) / 1.06, max(heights) * 1.06
        axes.set(yscale="log", ylim=(low, high))
        value_ticks(axes.yaxis, low, high)
    else:
        no_results(axes)
    runs = selections[0].runs
    level = cell_of(runs[runs[compare].isin(DIRECT) & (runs["n"] == n)], column).mean
    if np.isfinite(level):
        axes.axhline(level, color=ink(), linewidth=0.6, linestyle=(0, (1, 1.5)), zorder=1)
    axes.set_xticks(range(len(names)), list(names.values()))
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel(LABELS[options.metrics[0]])


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
        look = {"color": "0.15", "elinewidth": 0.8, "capsize": 2.0}
        axes.errorbar(x, cell.mean, yerr=cell.std, zorder=3, **look)
    # Side by side, so that equal values do not hide each other.
    spread = np.linspace(-0.28, 0.28, len(values)) if len(values) > 1 else np.zeros(1)
    dots = {"linestyle": "none", "marker": "o", "markersize": 2.6, "markeredgewidth": 0.3}
    axes.plot(x + width * spread, values, **dots, color=colour, markeredgecolor="white", zorder=4)
    if signs := marks_of(cell):
        axes.annotate(signs, (x, cell.mean), xytext=(4, 1), textcoords="offset points")
    if cell.flagged:
        # Runs far above the others can be outside the panel.
        return [float(values.min()), float(np.median(values))]
    return [*values, cell.mean + (cell.std if np.isfinite(cell.std) else 0.0)]
