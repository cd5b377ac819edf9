"""Learning curves: test errors against the number of DFT-labelled structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pretraining.figures.panels import (
    GREY,
    HOLLOW,
    LABELS,
    SIZES_LABEL,
    Extent,
    Options,
    draw_panel,
    handles_of,
    looks_of,
    note_below,
    reference_handles,
    reference_lines,
    reference_values,
)
from pretraining.figures.style import COLUMN_WIDTH, TEXT_WIDTH, house_style
from pretraining.results.runs_table import KEY
from pretraining.results.seed_statistics import FLAG_NOTE, common_seeds, curve_points, describe_runs
from pretraining.results.selection import Selected
from pretraining.runtime.errors import UserError
from pretraining.study.titles import SourceStyle

__all__ = ["Options", "learning_curves"]

PANEL_HEIGHT = 2.4


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
        Points in the columns of :data:`.published.POINT_COLUMNS`, drawn with open
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
    looks, titles = looks_of([*runs, *([] if published is None else [published])], options, styles)
    with house_style():
        figure, panels = _panels(max(len(selections), 1), len(metrics))
        for column, metric in enumerate(metrics):
            extent = Extent()
            known = None if published is None else published[published["metric"] == metric]
            for row, axes in enumerate(panels[:, column]):
                points = lines = None
                if selections:
                    points = curve_points(runs[row], metric, options.aggregate)
                    values = reference_values(selections[row], options, metric)
                    lines = reference_lines(values, options.compare, looks)
                draw_panel(axes, points, known, lines or [], looks, options.compare, extent)
                if len(selections) > 1:
                    axes.set_title(selections[row].chosen.transform, loc="left", pad=3)
            for axes in panels[:, column]:
                axes.set(ylabel=LABELS[metric], xlabel=SIZES_LABEL)
                extent.apply(axes)
        _legend(figure, selections, options, looks, titles, published)
        _note(figure, selections, runs, options, published)
        # Laid out once, here, so that a later save does not move anything.
        figure.draw_without_rendering()
    return figure


def _panels(transforms: int, metrics: int) -> tuple[Figure, np.ndarray]:
    """A grid of axes, a row a transform and a column a metric; a single metric's lie in a row."""
    flat = metrics == 1
    shape = (1, transforms) if flat else (transforms, metrics)
    width = TEXT_WIDTH if max(shape) > 1 else 1.35 * COLUMN_WIDTH
    figure, panels = plt.subplots(
        *shape, figsize=(width, PANEL_HEIGHT * shape[0] + 0.35), layout="constrained", squeeze=False
    )
    return figure, panels.T if flat else panels


def _legend(figure, selections, options, looks, titles, published) -> None:
    """The curves, and what dashed lines and open symbols stand for, to the right of the panels."""
    handles = handles_of(looks, titles, hollow=not selections)
    handles += reference_handles(options, selections)
    if selections and published is not None:
        symbol = {"linestyle": "none", "marker": "o", "markersize": 5.5, "color": GREY} | HOLLOW
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
        text = " · ".join(describe_runs(selections, drawn, options.aggregate, options.metrics))
        points = [
            curve_points(part, m, options.aggregate) for part in runs for m in options.metrics
        ]
    else:
        text = "published values only" + _spread(published, " ")
        points = [published]
    if any(part["flagged"].any() for part in points):
        text += f"\n{FLAG_NOTE}"
    note_below(figure, text)
